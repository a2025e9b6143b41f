"""DMIM on Wikipedia: 2,866 articles, SIFT words of the picture (128) and topics of the text (10); 10 classes.

Paper: https://ojs.aaai.org/index.php/AAAI/article/view/17076
Expected: not in the paper. k-means has ACC .17 on pictures, .54 on texts, .53 on both.
Minutes: about one on 2 CPU cores.
Command: python -m clustering_jax.main --config=configs/dmim_wiki.py --workdir=runs/wiki \
  --config.data.path=wiki_img_text.npz
The file has the keys view0 (pictures), view1 (texts) and y. The text comes first here, as it is what L3 balances
and what predicts. Labels are for scoring alone.
"""

from clustering_jax.settings import dmim


def get_config(variant: str = ""):
    """`variant`: "" or "smoke" (two steps on generated views)."""
    return dmim(
        variant,
        num_clusters=10,
        batch_size=0,
        data={
            "source": "multiview_pca",
            "path": "",
            "width": 100,
            "views": ("view1", "view0"),
            "label_key": "y",
        },
    )
