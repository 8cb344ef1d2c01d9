"""The detector on a part of one's own: the command line, the report page, other libraries' words."""
