"""Tests of exporters.images, against TensorFlow's own ops where there are any."""

import io

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
    (found,) = images.read(images.files_in(tmp_path), *size)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, tf_slim_preprocessing(pixels, *size), atol=1e-6)


def test_jpeg_is_decoded_as_tensorflow_does(tmp_path, pixels):
    import tensorflow as tf

    smooth = np.asarray(Image.fromarray(pixels).resize((400, 300), Image.BICUBIC))
    path = save(tmp_path / "image.jpg", smooth, quality=90)
    decoded = tf.io.decode_jpeg(path.read_bytes(), dct_method="INTEGER_ACCURATE")
    (found,) = images.read(images.files_in(tmp_path))
    expected = tf_slim_preprocessing(decoded, 299, 299)
    np.testing.assert_allclose(found, expected, atol=2 / 255)


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
def test_other_modes_become_rgb(tmp_path, pixels, mode):
    image = Image.fromarray(pixels).convert(mode)
    image.save(tmp_path / "image.png")
    (found,) = images.read(images.files_in(tmp_path), 97, 131)
    expected = tf_slim_preprocessing(np.asarray(image.convert("RGB")), 97, 131)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_files_come_in_order_of_names_up_to_the_limit(tmp_path):
    for name, level in (("c.JPG", 250), ("a.png", 50), ("b.jpeg", 150)):
        save(tmp_path / name, np.full((80, 80, 3), level, np.uint8))
    (tmp_path / "README.txt").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    found = images.read(images.files_in(tmp_path), 75, 75)
    levels = np.rint(found.mean((1, 2, 3)) * 255)
    np.testing.assert_array_equal(levels, [50, 150, 250])
    np.testing.assert_array_equal(
        images.read(images.files_in(tmp_path, 1), 75, 75), found[:1]
    )


def test_a_limit_spreads_over_all_files(tmp_path):
    for number in range(10):
        (tmp_path / f"{number}.png").touch()
    found = [file.stem for file in images.files_in(tmp_path, 4)]
    assert found == ["0", "2", "5", "7"]
    assert len(images.files_in(tmp_path, 20)) == 10


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(images.ImageError, match="nowhere does not exist"):
        images.files_in(tmp_path / "nowhere")


def test_a_file_is_no_directory(tmp_path, pixels):
    path = save(tmp_path / "image.png", pixels)
    with pytest.raises(images.ImageError, match=r"image\.png is not a directory"):
        images.files_in(path)


def test_a_directory_without_images_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(images.ImageError, match=r"holds no images.*\.jpg, \.jpeg"):
        images.read(images.files_in(tmp_path))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("kept", [0, 1, 10, 0.3, 0.6])
def test_a_truncated_image_is_named(tmp_path, pixels, suffix, kept):
    save(tmp_path / "a.png", pixels)
    path = save(tmp_path / f"b{suffix}", pixels)
    content = path.read_bytes()
    path.write_bytes(content[: kept if kept >= 1 else int(kept * len(content))])
    with pytest.raises(images.ImageError, match=rf"b\{suffix} cannot be read"):
        images.read(images.files_in(tmp_path))


def test_every_kind_of_damage_is_an_image_error(tmp_path, pixels):
    random = np.random.default_rng(2)
    for format in ("PNG", "JPEG"):
        stream = io.BytesIO()
        Image.fromarray(pixels[:40, :40]).save(stream, format)
        for _ in range(100):
            content = np.frombuffer(stream.getvalue(), np.uint8).copy()
            places = random.integers(0, min(len(content), 600), 3)
            content[places] = random.integers(0, 256, 3)
            (tmp_path / "image.png").write_bytes(content)
            try:
                (found,) = images.read(images.files_in(tmp_path), 75, 75)
            except images.ImageError as error:
                assert "image.png" in str(error)
            else:
                assert found.shape == (75, 75, 3)


def test_what_is_no_jpeg_or_png_is_named(tmp_path, pixels):
    (tmp_path / "a.png").write_text("text")
    with pytest.raises(images.ImageError, match=r"a\.png cannot be read"):
        images.read(images.files_in(tmp_path))
    save(tmp_path / "a.png", pixels, format="BMP")
    with pytest.raises(images.ImageError, match=r"a\.png cannot be read"):
        images.read(images.files_in(tmp_path))


def test_a_dangling_link_is_not_skipped(tmp_path):
    (tmp_path / "a.jpg").symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(images.ImageError, match=r"a\.jpg cannot be read"):
        images.read(images.files_in(tmp_path))


def test_sixteen_bits_a_channel_are_refused(tmp_path):
    Image.fromarray(np.full((80, 80), 40_000, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(images.ImageError, match="8 bits"):
        images.read(images.files_in(tmp_path))
