"""One module a role. A role is a loop around decisions: it moves facts one step forward."""
