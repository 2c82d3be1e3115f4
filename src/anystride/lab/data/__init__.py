"""Sources of labelled images and sound; each one makes its batches on the training device (`source.Source`)."""
