"""Object detection: images with boxes come in, Faster R-CNN around the trunk is fine-tuned, mean AP goes out."""
