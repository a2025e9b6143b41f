"""DMIM on MIRFlickr: 12,154 images and their tags.

Paper: https://ojs.aaai.org/index.php/AAAI/article/view/17076
Expected: the paper's figure is not known here. Nor are its settings: these are those of NUS-WIDE. The number of
  classes is 6 or 7 (--config.num_clusters=7), the files are taken to be laid out as those of NUS-WIDE.
Minutes: not measured; 500 steps on all rows, a GPU takes little more than one.
Command: python -m clustering_jax.main --config=configs/dmim_mirflickr.py --workdir=runs/mirflickr \
  --config.data.path=MIRFLICKR/
Views of any widths are brought to a common one, 100 or less. Labels are for scoring alone.
"""

from clustering_jax.settings import dmim


def get_config(variant: str = ""):
    """`variant`: "" or "smoke" (two steps on generated views)."""
    return dmim(
        variant,
        num_clusters=6,
        batch_size=0,
        data={
            "source": "multiview_pca",
            "path": "",
            "width": 100,
            "views": ("img.mat", "txt.mat"),
            "label_key": "L.mat",
        },
    )
