"""Tests of exporters.images, against TensorFlow's own ops where there are any."""

import io
import os
import re

import numpy as np
import pytest
from PIL import Image

from exporters import images


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (97, 131, 3), np.uint8)


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


def tf_slim_preprocessing(pixels, height, width):
    """`inception_preprocessing.preprocess_for_eval`, less its final 2x - 1."""
    import tensorflow as tf

    image = tf.image.convert_image_dtype(pixels, tf.float32)
    image = tf.image.central_crop(image, central_fraction=0.875)
    return tf.compat.v1.image.resize_bilinear(
        image[tf.newaxis], [height, width], align_corners=False
    )[0].numpy()


def test_generate_is_reproducible_and_independent_of_count():
    three = images.generate(3, 40, 50, seed=4)
    assert three.dtype == np.float32
    assert three.min() >= 0 and three.max() <= 1
    np.testing.assert_array_equal(images.generate(2, 40, 50, seed=4), three[:2])
    assert not np.array_equal(images.generate(1, 40, 50, seed=5), three[:1])


@pytest.mark.parametrize(
    "shape",
    [(299, 299), (375, 500), (97, 131), (341, 342), (1200, 801), (64, 9), (1, 1)],
)
@pytest.mark.parametrize("size", [(299, 299), (224, 320), (75, 75)])
def test_preprocessing_is_tf_slims(tmp_path, shape, size):
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    save(tmp_path / "image.png", pixels)
    (found,) = images.read_directory(tmp_path, *size).images
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, tf_slim_preprocessing(pixels, *size), atol=1e-6)


def decoded(path):
    """The pixels of an image file by TensorFlow, uint8 [height, width, 3]."""
    import tensorflow as tf

    content = path.read_bytes()
    if content[:2] == b"\xff\xd8":
        return tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")
    return tf.io.decode_image(content, channels=3, expand_animations=False)


def read_one(directory, *size):
    (found,) = images.read_directory(directory, *size).images
    return found


def check_as_tensorflow(path, atol):
    found = read_one(path.parent, 97, 131)
    expected = tf_slim_preprocessing(decoded(path), 97, 131)
    np.testing.assert_allclose(found, expected, atol=atol)


def smooth(pixels):
    return Image.fromarray(pixels).resize((400, 300), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_is_decoded_as_tensorflow_does(tmp_path, pixels, mode):
    smooth(pixels).convert(mode).save(tmp_path / "image.jpg", quality=90)
    check_as_tensorflow(tmp_path / "image.jpg", 3 / 255)


def test_an_orientation_is_ignored_as_by_tensorflow(tmp_path, pixels):
    exif = Image.Exif()
    exif[274] = 6
    smooth(pixels).save(tmp_path / "image.jpg", exif=exif)
    check_as_tensorflow(tmp_path / "image.jpg", 3 / 255)


def photograph(kind):
    """A JPEG of scikit-image's, as people have them."""
    from skimage import data

    image = Image.fromarray({"grey": data.camera}.get(kind, data.astronaut)())
    image = image.crop((0, 0, 501, 347))
    stream, options = io.BytesIO(), {}
    if kind == "CMYK":
        image = image.convert("CMYK")
    elif kind == "rotated":
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 6  # Orientation: to be turned by 90 degrees.
    elif kind == "progressive":
        options["progressive"] = True
    elif kind == "subsampled":
        options["subsampling"] = "4:2:0"
    image.save(stream, "JPEG", quality=90, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    "kind", ["colour", "grey", "CMYK", "rotated", "progressive", "subsampled"]
)
@pytest.mark.parametrize("size", [(299, 299), (75, 75)])
def test_photographs_are_prepared_as_tensorflow_does(kind, size):
    """To the last bit of pixels, with the accurate transform.

    TensorFlow's default transform is a faster one, which is off by some levels.
    """
    import tensorflow as tf

    content = photograph(kind)
    accurate, default = (
        tf.io.decode_jpeg(content, channels=3, dct_method=method).numpy()
        for method in ("INTEGER_ACCURATE", "")
    )
    pixels = images.decode(content, kind)
    assert pixels.shape == (347, 501, 3)
    np.testing.assert_array_equal(pixels, accurate)
    difference = np.abs(pixels.astype(int) - default)
    assert difference.max() <= 6 and difference.mean() < 1
    found = images.preprocess(pixels, *size)
    expected = tf_slim_preprocessing(accurate, *size)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1"])
def test_other_modes_become_rgb_as_by_tensorflow(tmp_path, pixels, mode):
    Image.fromarray(pixels).convert(mode).save(tmp_path / "image.png")
    check_as_tensorflow(tmp_path / "image.png", 1e-6)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits_a_channel_become_8_as_by_tensorflow(tmp_path, channels):
    import tensorflow as tf

    random = np.random.default_rng(3)
    pixels = random.integers(0, 1 << 16, (97, 131, channels), np.uint16)
    path = tmp_path / "image.png"
    path.write_bytes(tf.io.encode_png(pixels).numpy())
    check_as_tensorflow(path, 1e-6)


@pytest.mark.parametrize("format", ["PNG", "BMP", "WEBP"])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".JPEG"])
def test_content_counts_not_the_name(tmp_path, pixels, format, suffix):
    Image.fromarray(pixels).save(tmp_path / f"image{suffix}", format=format)
    check_as_tensorflow(tmp_path / f"image{suffix}", 1e-6)


# Directories


def levels_of(found):
    return np.rint(found.images.mean((1, 2, 3)) * 255).tolist()


def grey(level):
    return np.full((80, 80, 3), level, np.uint8)


def test_files_come_in_order_of_names(tmp_path):
    for name, level in (("c.JPG", 250), ("a.png", 50), ("b.jpeg", 150)):
        save(tmp_path / name, grey(level))
    found = images.read_directory(tmp_path, 75, 75)
    assert levels_of(found) == [50, 150, 250]
    assert [file.name for file in found.files] == ["a.png", "b.jpeg", "c.JPG"]
    assert found.skipped == {}
    assert found.note(tmp_path) is None


def test_a_limit_spreads_over_all_files(tmp_path):
    for number in range(10):
        save(tmp_path / f"{number}.png", grey(20 * number))
    found = images.read_directory(tmp_path, 75, 75, limit=4)
    assert [file.stem for file in found.files] == ["0", "2", "5", "7"]
    assert levels_of(found) == [0, 40, 100, 140]
    assert len(images.read_directory(tmp_path, 75, 75, limit=20).files) == 10


def test_others_take_the_places_of_what_cannot_be_read(tmp_path, monkeypatch):
    for number in range(10):
        save(tmp_path / f"{number}.png", grey(20 * number))
    for number in (2, 3):
        (tmp_path / f"{number}.png").write_text("text")
    found = images.read_directory(tmp_path, 75, 75, limit=4)
    assert [file.stem for file in found.files] == ["0", "1", "5", "7"]
    assert levels_of(found) == [0, 20, 100, 140]
    assert [file.stem for file in found.skipped] == ["2", "3"]
    monkeypatch.setattr(images, "_MOST_TRIED", 9)
    found = images.read_directory(tmp_path, 75, 75, limit=4)
    assert levels_of(found) == [0, 20, 100, 140]
    assert [file.stem for file in found.skipped] == ["2"]


def test_images_are_found_in_directories_below(tmp_path):
    """As ImageNet's validation images often are."""
    for folder, level in (("n02", 200), ("n01/deep", 100)):
        (tmp_path / folder).mkdir(parents=True)
        save(tmp_path / folder / "ILSVRC2012_val_00000293.JPEG", grey(level))
    (tmp_path / ".hidden").mkdir()
    save(tmp_path / ".hidden" / "image.png", grey(10))
    (tmp_path / "folder.png").mkdir()
    found = images.read_directory(tmp_path, 75, 75)
    assert levels_of(found) == [100, 200]
    assert found.skipped == {}


def test_links_to_directories_are_not_followed(tmp_path):
    """They may lead back here."""
    save(tmp_path / "a.png", grey(1))
    (tmp_path / "again").symlink_to(tmp_path)
    found = images.read_directory(tmp_path, 75, 75)
    assert len(found.files) == 1
    assert (
        found.note(tmp_path)
        == f"Not read in {tmp_path}: again (a link to a directory)."
    )


def test_what_cannot_be_read_is_named_and_the_rest_is_read(tmp_path, pixels):
    for name in ("a.png", "f.webp", "truncated.jpg"):
        save(tmp_path / name, pixels)
    whole = (tmp_path / "truncated.jpg").read_bytes()
    (tmp_path / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.png").write_text("text")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "README.txt").write_text("no image")
    (tmp_path / "._a.png").write_bytes(b"\0\5\26\7")  # Of macOS.
    (tmp_path / ".DS_Store").touch()
    os.mkfifo(tmp_path / "pipe.png")
    found = images.read_directory(tmp_path, 97, 131)
    assert [file.name for file in found.files] == ["a.png", "f.webp"]
    note = found.note(tmp_path)
    for told in (
        "README.txt (not called like an image)",
        "empty.jpg (empty)",
        "pipe.png (not a regular file)",
        "text.png (no image in it)",
    ):
        assert told in note
    assert re.search(r"gone\.jpg \(.*No such file", note)
    assert re.search(r"truncated\.jpg \(.*truncated", note)
    assert len(found.skipped) == 6


def test_many_that_cannot_be_read_fit_on_a_screen(tmp_path, pixels):
    save(tmp_path / "a.png", pixels)
    for number in range(1500):
        (tmp_path / f"{number:04}.xml").touch()
    note = images.read_directory(tmp_path, 75, 75).note(tmp_path)
    assert "0019.xml (not called like an image), and 1,480 more." in note


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(images.ImageError, match="nowhere does not exist"):
        images.read_directory(tmp_path / "nowhere")


def test_a_file_is_no_directory(tmp_path, pixels):
    path = save(tmp_path / "image.png", pixels)
    with pytest.raises(images.ImageError, match=r"image\.png is not a directory"):
        images.read_directory(path)


def test_a_directory_without_images_is_named(tmp_path):
    with pytest.raises(images.ImageError, match=r"holds no images\. .*\.jpg, \.jpeg"):
        images.read_directory(tmp_path)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "a.jpg").touch()
    with pytest.raises(images.ImageError) as caught:
        images.read_directory(tmp_path)
    told = "not read: a.jpg (empty), notes.txt (not called like an image)"
    assert told in str(caught.value)


# Damage


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("kept", [0, 1, 10, 0.3, 0.6])
def test_a_truncated_image_is_named(tmp_path, pixels, suffix, kept):
    path = save(tmp_path / f"b{suffix}", pixels)
    content = path.read_bytes()
    path.write_bytes(content[: kept if kept >= 1 else int(kept * len(content))])
    with pytest.raises(images.ImageError, match=rf"b\{suffix} cannot be read"):
        images.read([path])


def test_every_kind_of_damage_is_an_image_error(tmp_path, pixels):
    random = np.random.default_rng(2)
    path = tmp_path / "image.png"
    for format in ("PNG", "JPEG", "BMP", "WEBP"):
        stream = io.BytesIO()
        Image.fromarray(pixels[:40, :40]).save(stream, format)
        for _ in range(100):
            content = np.frombuffer(stream.getvalue(), np.uint8).copy()
            places = random.integers(0, min(len(content), 600), 3)
            content[places] = random.integers(0, 256, 3)
            path.write_bytes(content)
            try:
                (found,) = images.read([path], 75, 75)
            except images.ImageError as error:
                assert "image.png" in str(error)
            else:
                assert found.shape == (75, 75, 3)


def test_images_of_other_kinds_are_named(tmp_path, pixels):
    path = save(tmp_path / "a.png", pixels, format="GIF")
    with pytest.raises(images.ImageError, match=r"a\.png cannot be read.*WebP"):
        images.read([path])
