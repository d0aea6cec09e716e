"""Every model that Temporal records, one module per job. Fields are added with defaults, never renamed or retyped."""
