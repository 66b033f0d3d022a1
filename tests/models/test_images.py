"""Images from every source, and one clear error for each kind of bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pyinterp.models.images import load_images
from pyinterp.models.photographs import crops, photographs
from pyinterp.models.pictures import to_rgb


def _noise(width: int, height: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def _normalised(image: Image.Image) -> torch.Tensor:
    """A preprocess as models have it: resize, centre crop, mean and deviation per channel."""
    image = image.resize((12, 10)).crop((2, 1, 10, 9))
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    return (values - torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)) / torch.tensor([0.2, 0.3, 0.1]).view(
        3, 1, 1
    )


# ---- sources


def test_pil_images_are_scaled_to_one_without_a_preprocess() -> None:
    picture = _noise(7, 5)
    batch = load_images([picture, picture])
    assert batch.tensor.shape == (2, 3, 5, 7)
    assert batch.tensor.dtype == torch.float32
    assert torch.equal(batch.tensor[0], torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255)
    assert batch.names == ("image 0", "image 1")
    assert torch.equal(batch.pixels[1].permute(1, 2, 0), torch.from_numpy(np.array(picture)))
    assert len(batch) == 2


def test_one_picture_needs_no_list(tmp_path: Path) -> None:
    _noise(4, 4).save(tmp_path / "a.png")
    assert load_images(_noise(4, 4)).tensor.shape == (1, 3, 4, 4)
    assert load_images(str(tmp_path / "a.png")).names == ("a.png",)
    with Image.open(tmp_path / "a.png") as opened:
        assert load_images(opened).names == ("a.png",)


def test_folder_is_read_by_name_without_subfolders_and_other_files(tmp_path: Path) -> None:
    for i, name in enumerate(("b.png", "A.JPG", "c.webp", ".hidden.png")):
        _noise(4, 4, i).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "sub.png").mkdir()
    _noise(4, 4).save(tmp_path / "sub.png" / "d.png")
    assert load_images(tmp_path).names == ("A.JPG", "b.png", "c.webp")
    mixed = load_images([tmp_path, _noise(4, 4), tmp_path / "b.png", torch.zeros(3, 4, 4)])
    assert mixed.names == ("A.JPG", "b.png", "c.webp", "image 3", "b.png", "image 5")


def test_tensor_batch_is_taken_as_it_is() -> None:
    given = torch.randn(2, 3, 6, 5, dtype=torch.float64, requires_grad=True)
    batch = load_images(given, _normalised)
    assert torch.equal(batch.tensor, given.detach().float())
    assert not batch.tensor.requires_grad
    assert batch.pixels.shape == (2, 3, 6, 5)
    assert load_images(torch.randn(2, 1, 6, 5)).pixels.shape == (2, 3, 6, 5)


def test_pixels_undo_the_normalisation() -> None:
    picture = _noise(40, 30)
    seen = np.array(picture.resize((12, 10)).crop((2, 1, 10, 9)))
    batch = load_images(picture, _normalised)
    assert batch.tensor.shape == (1, 3, 8, 8)
    assert torch.equal(batch.pixels[0].permute(1, 2, 0), torch.from_numpy(seen))
    again = load_images(batch.tensor, _normalised)
    assert torch.equal(again.pixels, batch.pixels)


def test_pixels_are_stretched_where_the_preprocess_is_not_affine() -> None:
    def standardised(image: Image.Image) -> torch.Tensor:
        values = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
        return (values - values.mean()) / (values.std() + 1e-6)

    pixels = load_images(_noise(6, 6), standardised).pixels
    assert pixels.min() == 0
    assert pixels.max() == 255


# ---- pictures


def test_orientation_of_the_camera_is_respected(tmp_path: Path) -> None:
    upright = _noise(6, 4)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: to be shown rotated by 90 degrees clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    batch = load_images(tmp_path / "turned.png")
    assert torch.equal(batch.pixels[0].permute(1, 2, 0), torch.from_numpy(np.array(upright)))


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits_become_eight(tmp_path: Path, ending: str) -> None:
    values = np.array([[0, 65535, 32768], [257, 128, 129]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"deep.{ending}")
    expected = np.round(values / 257).astype(np.uint8)
    pixels = load_images(tmp_path / f"deep.{ending}").pixels[0].numpy()
    assert all(np.array_equal(channel, expected) for channel in pixels)


def test_palette_and_transparency_are_laid_on_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (2, 1), (10, 20, 30, 255))
    clear.putpixel((1, 0), (10, 20, 30, 0))
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([10, 20, 30, 200, 0, 0])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "palette.gif", transparency=1)
    clear.save(tmp_path / "clear.png")
    for name in ("clear.png", "palette.gif"):
        pixels = load_images(tmp_path / name).pixels[0, :, 0].T.tolist()
        assert pixels == [[10, 20, 30], [255, 255, 255]], name


@pytest.mark.parametrize("mode", ["1", "L", "LA", "La", "P", "RGB", "RGBA", "RGBa", "CMYK", "HSV"])
def test_every_eight_bit_mode_becomes_rgb(mode: str) -> None:
    picture = to_rgb(Image.new(mode, (3, 2)))
    assert (picture.mode, picture.size) == ("RGB", (3, 2))


# ---- bad input


@pytest.mark.parametrize("mode", ["I", "F"])
def test_modes_without_a_known_white_are_refused(mode: str) -> None:
    with pytest.raises(ValueError, match="image 0: "):
        load_images(Image.new(mode, (3, 2)))


def test_all_broken_files_are_named_at_once(tmp_path: Path) -> None:
    _noise(64, 64).save(tmp_path / "good.png")
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(ValueError, match="images that can be read, got 4 of 5") as caught:
        load_images([tmp_path, tmp_path / "gone.png"])
    for name in ("cut.png: ", "empty.jpg: ", "text.png: not an image file", "gone.png: no such file"):
        assert name in str(caught.value)
    assert "good.png" not in str(caught.value)


def test_formats_that_start_programs_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "script.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n")
    with pytest.raises(ValueError, match=r"script\.png: not an image file"):
        load_images(tmp_path / "script.png")


def test_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    with pytest.raises(ValueError, match=r"bomb\.png: .*400000000 pixels.*decompression bomb"):
        load_images(tmp_path / "bomb.png")
    Image.new("1", (10_000, 10_000)).save(tmp_path / "bomb.png")
    with pytest.raises(ValueError, match=r"10000 x 10000 pixels.*max_pixels=89478485"):
        load_images(tmp_path)
    with pytest.raises(ValueError, match="max_pixels=10 "):
        load_images(_noise(4, 4), max_pixels=10)
    assert load_images(_noise(4, 4), max_pixels=16).tensor.shape == (1, 3, 4, 4)


def test_no_images(tmp_path: Path) -> None:
    for nothing in ([], (), torch.empty(0, 3, 4, 4), torch.empty(2, 3, 0, 4)):
        with pytest.raises(ValueError, match="expected at least one image"):
            load_images(nothing)
    with pytest.raises(ValueError, match="expected images in the folder"):
        load_images(tmp_path)


def test_mixed_sizes_are_shown_with_an_example_each() -> None:
    with pytest.raises(
        ValueError, match=r"one size, got \(3, 4, 5\) \(image 0\), \(3, 4, 6\) \(image 2\)\. Resize"
    ):
        load_images([_noise(5, 4), _noise(5, 4), _noise(6, 4), _noise(6, 4)])
    with pytest.raises(ValueError, match="images of one size"):
        load_images([torch.zeros(3, 4, 5), torch.zeros(1, 4, 5)])


def test_shapes_and_channels_that_the_model_does_not_take() -> None:
    with pytest.raises(
        ValueError, match=r"expected images of shape \(3, any, any\), got \(1, 8, 8\)\. The model takes 3"
    ):
        load_images(torch.zeros(2, 1, 8, 8), expected_shape=(3, None, None))
    with pytest.raises(ValueError, match=r"expected images of shape \(3, 8, 9\), got \(3, 8, 8\)\. Resize"):
        load_images(torch.zeros(2, 3, 8, 8), expected_shape=(3, 8, 9))
    assert len(load_images(torch.zeros(2, 3, 8, 8), expected_shape=(3, 8, None))) == 2


def test_tensors_that_are_no_float_batch() -> None:
    with pytest.raises(ValueError, match=r"one image \(3, 8, 8\)\. Pass images\[None\]"):
        load_images(torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match="four axes"):
        load_images(torch.zeros(8, 8))
    with pytest.raises(TypeError, match=r"torch\.uint8"):
        load_images(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    for value in (float("nan"), float("inf")):
        broken = torch.zeros(3, 3, 8, 8)
        broken[1, 2, 3, 4] = value
        with pytest.raises(ValueError, match=r"NaN or infinity in image 1\."):
            load_images(broken)
    for hollow in (torch.zeros(2, 3, 8, 8, device="meta"), [torch.zeros(3, 8, 8, device="meta")]):
        with pytest.raises(ValueError, match="a batch on the device meta"):
            load_images(hollow)


def test_things_that_are_no_images() -> None:
    with pytest.raises(TypeError, match=r"PIL\.Image\.fromarray"):
        load_images(np.zeros((8, 8, 3), dtype=np.uint8))
    with pytest.raises(TypeError, match=r"PIL\.Image\.fromarray"):
        load_images([np.zeros((8, 8, 3), dtype=np.uint8)])
    for thing in (3, None, b"bytes", [None]):
        with pytest.raises(TypeError, match="expected images"):
            load_images(thing)


def test_preprocess_must_give_a_float_tensor() -> None:
    with pytest.raises(TypeError, match=r"float tensor \(C, H, W\) of an image, got Image for image 0"):
        load_images(_noise(4, 4), lambda image: image)
    with pytest.raises(TypeError, match=r"torch\.uint8 of shape \(3, 4, 4\)"):
        load_images(_noise(4, 4), lambda image: torch.zeros(3, 4, 4, dtype=torch.uint8))


# ---- photographs and crops


def test_photographs_are_there_without_a_network() -> None:
    shown = photographs()
    assert set(shown) == {"chelsea", "coffee", "rocket", "china", "flower"}
    assert all(picture.mode == "RGB" and min(picture.size) >= 300 for picture in shown.values())


def test_crops_are_parts_of_the_photograph_chosen_by_seed() -> None:
    # A picture whose red and green channels count columns and rows tells where each crop lies.
    columns, rows = np.meshgrid(np.arange(250), np.arange(200))
    picture = Image.fromarray(np.stack([columns, rows, rows * 0], -1).astype(np.uint8))
    some = crops(picture, 20, size=64, seed=3)
    assert [np.array(crop).tolist() for crop in some] == [
        np.array(crop).tolist() for crop in crops(picture, 20, size=64, seed=3)
    ]
    assert np.array(some[0]).tolist() != np.array(crops(picture, 20, size=64, seed=4)[0]).tolist()
    sides = []
    for crop in some:
        assert crop.size == (64, 64)
        values = np.array(crop).astype(float)
        width = (values[32, -1, 0] - values[32, 0, 0]) * 64 / 63
        height = (values[-1, 32, 1] - values[0, 32, 1]) * 64 / 63
        assert abs(width - height) < 3
        sides.append(width)
    assert min(sides) > 0.57 * 200
    assert max(sides) < 1.03 * 200
    assert max(sides) - min(sides) > 40
    with pytest.raises(ValueError, match="count=0"):
        crops(picture, 0, size=64, seed=0)
