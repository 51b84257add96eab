"""A study's report: everything that its bundles' records and evaluations say, as Markdown and as one page."""
