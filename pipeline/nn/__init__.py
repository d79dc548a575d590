"""The only folder that imports torch, timm or an inference runtime."""
