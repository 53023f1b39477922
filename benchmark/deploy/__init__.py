"""What happens to networks after training: export, scores, predictions."""
