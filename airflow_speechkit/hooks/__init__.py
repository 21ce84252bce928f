"""What tasks and triggers reach SpeechKit and the bucket through."""
