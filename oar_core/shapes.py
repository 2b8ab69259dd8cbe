"""The legend of shape letters, used in every jaxtyping annotation.

| letter | axis                          | letter | axis                 |
|--------|-------------------------------|--------|----------------------|
| B      | batch (rows)                  | D      | model width          |
| L      | tokens per image              | N      | heads                |
| G      | tokens (queries) in this step | H      | head width           |
| T      | cached tokens                 | C      | code width           |
| P      | condition (prompt) tokens     | h w    | token grid           |
| K      | tokens committed in this step | Y X    | pixels               |
| V      | vocabulary (codebook) size    |        |                      |
"""
