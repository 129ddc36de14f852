"""The commands: one file each, named like the command, with its typed options, its call and what it prints."""
