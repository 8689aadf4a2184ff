"""What a finished run is told with: tables, figures, one HTML page, files for other tools. Never runs a model."""
