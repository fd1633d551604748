"""What the panels of both modules share: choices kept in the scene, Apply and Cancel, progress and status."""
