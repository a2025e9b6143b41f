"""DMIM on ESP-Game: 11,032 images, two descriptions of each and its tags; 7 classes of 1,192 to 1,755.

Paper: https://ojs.aaai.org/index.php/AAAI/article/view/17076
Expected: the paper's figure is not known here. Nor are its settings: these are those of NUS-WIDE, but for the rate,
  which a later paper of the authors has.
Minutes: not measured; 500 steps on all rows, a GPU takes little more than one.
Command: python -m clustering_jax.main --config=configs/dmim_esp.py --workdir=runs/esp \
  --config.data.path=ESP/
The folder holds img_1.mat, img_2.mat, txt_1.mat and L.mat. Image and tags alone:
--config.data.views="('img_1.mat', 'txt_1.mat')". Labels are for scoring alone.
"""

from clustering_jax.settings import dmim


def get_config(variant: str = ""):
    """`variant`: "" or "smoke" (two steps on generated views)."""
    return dmim(
        variant,
        num_clusters=7,
        batch_size=0,
        data={
            "source": "multiview_pca",
            "path": "",
            "width": 100,
            "views": ("img_1.mat", "img_2.mat", "txt_1.mat"),
            "label_key": "L.mat",
        },
        optimizer={"learning_rate": 1e-3},
    )
