"""The `triggerwall` command of this checkout, by the Python that runs the bench."""

from importlib.metadata import entry_points

if __name__ == "__main__":
    (command,) = entry_points(group="console_scripts", name="triggerwall")
    command.load()()
