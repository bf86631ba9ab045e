"""`leanface demo`: a page that turns a photo into a 3D face, with the original network beside the compressed one."""
