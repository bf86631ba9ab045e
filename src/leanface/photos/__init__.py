"""From files to the network's input: photos and videos are read, faces found, aligned and cut out."""
