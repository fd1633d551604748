"""Closed-form matting: soft masks from an image and a trimap."""
