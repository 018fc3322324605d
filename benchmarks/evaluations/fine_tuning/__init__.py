"""Fine-tuning shared by depth and detection: a model and batches in, trained weights and a learning curve out."""
