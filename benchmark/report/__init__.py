"""What one publishes: tables, figures, one HTML file. No torch."""
