"""Demo: a sandbox, the real program and a real client, with a timeline of what happens."""
