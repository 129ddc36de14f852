"""The table of commands, in the order in which ``--help`` lists them."""

COMMANDS = {
    name: f"lineproof.commands.{name.replace('-', '_')}:{name.replace('-', '_')}"
    for name in (
        "train", "export", "calibrate", "set-threshold", "verify", "profile", "run", "evaluate", "compare", "badcases",
        "inspect", "doctor", "models", "sample", "demo",
    )
}  # fmt: skip
