"""DMIM on NUS-WIDE: 20,000 images and their tags, features of width 100 each; 8 classes of 2,500.

Paper: https://ojs.aaai.org/index.php/AAAI/article/view/17076
Expected: the paper's figure is not known here; the settings are those of the first author's demonstration.
Minutes: not measured; 500 steps on all rows, a GPU takes little more than one.
Command: python -m clustering_jax.main --config=configs/dmim_nuswide.py --workdir=runs/nuswide \
  --config.data.path=NUSWIDE/
The folder holds img.mat (key img), txt.mat (txt) and L.mat (L, from 1); if label.mat is there in its place,
--config.data.label_key=label.mat. Labels are for scoring alone, --config.data.label_key= reads none.
"""

from clustering_jax.settings import dmim


def get_config(variant: str = ""):
    """`variant`: "" or "smoke" (two steps on generated views)."""
    return dmim(
        variant,
        num_clusters=8,
        batch_size=0,
        data={
            "source": "multiview_pca",
            "path": "",
            "width": 100,
            "views": ("img.mat", "txt.mat"),
            "label_key": "L.mat",
        },
    )
