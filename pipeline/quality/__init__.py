"""What is wrong with the images and labels themselves: duplicates, wrong labels, outliers, blanks, tiny classes."""
