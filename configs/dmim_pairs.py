"""DMIM on NUS-WIDE, ESP-Game, MIRFlickr, IAPR TC-12 and Wikipedia: images and their tags, captions or articles.

Paper: https://ojs.aaai.org/index.php/AAAI/article/view/17076
Expected: the figures of the paper are not known here, and the paper does not use Wikipedia. On Wikipedia k-means has
  ACC .17 on pictures, .54 on texts and .53 on both. The settings are those of the first author's demonstration on
  NUS-WIDE.
Minutes: a run has 500 steps on all rows. Wikipedia takes about one minute on 2 CPU cores. On a GPU, each data set takes
  about one minute (not measured).
Command: python -m clustering_jax.main --config=configs/dmim_pairs.py:nuswide --workdir=runs/nuswide \
  --config.data.path=NUSWIDE/
The variant is the data set. With ",smoke", as in esp,smoke, it is the smoke run. Views of any width are projected to
100 columns or fewer. Labels are used for scoring only, and `--config.data.label_key=` reads none.
  nuswide (the default): 20,000 images and tags, 8 classes of 2,500. The folder has img.mat (key img), txt.mat (key txt)
    and L.mat (key L, labels from 1). If the file of the labels is label.mat, set --config.data.label_key=label.mat.
  esp: 11,032 images with two descriptors, and their tags, 7 classes of 1,192 to 1,755. The learning rate is that of a
    later paper of the authors. For one descriptor and the tags set --config.data.views="('img_1.mat', 'txt_1.mat')".
  mirflickr: 12,154 images and tags, 6 or 7 classes (--config.num_clusters=7). Its files are assumed to have the form of
    NUS-WIDE's files.
  iapr: 7,855 images and captions, 6 classes; neither number is confirmed. Its files are assumed to have the form of
    NUS-WIDE's files.
  wiki: 2,866 articles, described by the SIFT words of the picture (128) and the topics of the text (10), 10 classes.
    The path is a .npz file with the keys view0 (pictures), view1 (texts) and y. The text is the first view, because L3
    balances the first view and the first view predicts.
"""

from clustering_jax.settings import dmim, split_variant

IMAGE_AND_TEXT = {"num_clusters": 6, "views": ("img.mat", "txt.mat"), "label_key": "L.mat"}
SETS = {
    "nuswide": {**IMAGE_AND_TEXT, "num_clusters": 8},
    "esp": {"num_clusters": 7, "views": ("img_1.mat", "img_2.mat", "txt_1.mat"), "label_key": "L.mat"},
    "mirflickr": IMAGE_AND_TEXT,
    "iapr": IMAGE_AND_TEXT,
    "wiki": {"num_clusters": 10, "views": ("view1", "view0"), "label_key": "y"},
}


def get_config(variant: str = ""):
    """`variant`: a key of `SETS`; "smoke" or "esp,smoke" is two steps on generated views."""
    name, smoke = split_variant(variant, SETS)
    views = SETS[name]
    return dmim(
        smoke,
        num_clusters=views["num_clusters"],
        batch_size=0,
        data={
            "source": "multiview_pca",
            "path": "",
            "width": 100,
            "views": views["views"],
            "label_key": views["label_key"],
        },
        optimizer={"learning_rate": 1e-3} if name == "esp" else {},
    )
