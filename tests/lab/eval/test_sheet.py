import numpy as np

from oar_lab.eval.sheet import contact_sheet, enlarged


def test_pictures_stand_row_by_row_at_full_sharpness() -> None:
    tiles = [np.full((2, 3, 3), shade, dtype=np.uint8) for shade in (0, 50, 100)]
    sheet = np.asarray(contact_sheet(tiles, 2, scale=4, gap=1))
    assert sheet.shape == (2 * 9 + 1, 2 * 13 + 1, 3)
    assert (sheet[1:9, 1:13] == 0).all()
    assert (sheet[1:9, 14:26] == 50).all()
    assert (sheet[10:18, 1:13] == 100).all()
    assert (sheet[10:18, 14:26] == 225).all()


def test_pixel_art_keeps_its_colours_and_a_photograph_gets_shades_between() -> None:
    picture = np.zeros((2, 2, 3), dtype=np.uint8)
    picture[0, 0] = picture[1, 1] = 200
    crisp, smooth = (enlarged(picture, 4, is_crisp=is_crisp) for is_crisp in (True, False))
    assert crisp.shape == smooth.shape == (8, 8, 3)
    assert set(np.unique(crisp)) == {0, 200}
    assert len(np.unique(smooth)) > 4
