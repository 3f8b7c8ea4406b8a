"""Where an analysis runs. An engine takes bytes and a plan and reports through a callable."""
