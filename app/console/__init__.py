"""The web console: what its pages show and what its forms do. HTTP is in `app.routes.console`."""
