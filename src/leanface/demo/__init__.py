"""`leanface demo`: a page that turns a photo into a 3D face, by the original network and by the compressed one."""
