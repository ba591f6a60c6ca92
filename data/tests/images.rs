//! Folders of images, good and bad.

use std::{
    fs,
    path::{Path, PathBuf},
};

use image::{GrayImage, ImageFormat, Luma, Rgb, RgbImage, Rgba, RgbaImage};
use sapwood_data::{DataError, Limits, Schema, Source, class_names, load, load_columns, load_with};
use sapwood_models::{DataFault, Dataset, Targets};
use tempfile::TempDir;

fn folder(classes: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    classes.iter().for_each(|class| fs::create_dir(dir.path().join(class)).unwrap());
    dir
}

fn source(dir: &TempDir) -> Source {
    Source::Path(dir.path().to_path_buf())
}

fn grey(dir: &TempDir, name: &str, size: (u32, u32), value: impl Fn(u32, u32) -> u8) -> PathBuf {
    let path = dir.path().join(name);
    GrayImage::from_fn(size.0, size.1, |x, y| Luma([value(x, y)])).save(&path).unwrap();
    path
}

fn schema(shape: &str, classes: usize) -> Schema {
    Schema::from_toml(&format!("[input]\nshape = {shape}\n[targets]\nclasses = {classes}")).unwrap()
}

fn values(data: &Dataset) -> Vec<f32> {
    data.x.only().unwrap().as_f32().unwrap().to_vec()
}

/// The refusal, which names the file or folder.
fn refused(dir: &TempDir, schema: Option<&Schema>, named: &str) -> DataError {
    let error = load(&source(dir), schema).unwrap_err();
    assert!(error.to_string().contains(named), "{error}");
    error
}

#[test]
fn classes_are_numbered_by_their_folders_names() {
    let dir = folder(&["dog", "cat", ".thumbnails"]);
    grey(&dir, "dog/b.png", (2, 1), |x, _| 10 + x as u8);
    grey(&dir, "dog/a.PNG", (2, 1), |x, _| 20 + x as u8);
    grey(&dir, "cat/z.png", (2, 1), |x, _| 254 + x as u8);
    fs::write(dir.path().join("cat/.hidden"), "nothing").unwrap();
    fs::write(dir.path().join(".notes"), "nothing").unwrap();
    let (data, columns) = load_columns(&source(&dir), None, &["class"]).unwrap();
    assert_eq!(data.y, Targets::Classes(vec![0, 1, 1]));
    assert_eq!(data.x.only().unwrap().shape, [3, 1, 1, 2]);
    assert_eq!(values(&data), [254.0, 255.0, 20.0, 21.0, 10.0, 11.0]);
    assert_eq!(columns.get("class").unwrap(), ["cat", "dog", "dog"]);
    assert_eq!(class_names(&source(&dir)).unwrap().unwrap(), ["cat", "dog"]);
    assert_eq!(class_names(&"digits".parse().unwrap()).unwrap(), None);
}

#[test]
fn colours_are_planes() {
    let dir = folder(&["a", "b"]);
    let image = RgbImage::from_fn(2, 2, |x, y| Rgb([x as u8, 10 + y as u8, 255]));
    image.save(dir.path().join("a/1.png")).unwrap();
    // Nothing is transparent.
    RgbaImage::from_pixel(2, 2, Rgba([1, 2, 3, 255])).save(dir.path().join("b/1.png")).unwrap();
    RgbImage::from_pixel(2, 2, Rgb([4, 5, 6])).save(dir.path().join("b/3.bmp")).unwrap();
    let data = load(&source(&dir), None).unwrap();
    assert_eq!(data.x.only().unwrap().shape, [3, 3, 2, 2]);
    let first = [[0.0, 1.0, 0.0, 1.0], [10.0, 10.0, 11.0, 11.0], [255.0; 4]].concat();
    let planes = [first, [[1.0; 4], [2.0; 4], [3.0; 4], [4.0; 4], [5.0; 4], [6.0; 4]].concat()].concat();
    assert_eq!(values(&data), planes);

    RgbaImage::from_pixel(2, 2, Rgba([1, 2, 3, 254])).save(dir.path().join("b/2.png")).unwrap();
    assert!(matches!(refused(&dir, None, "b/2.png: parts of it are transparent"), DataError::Unsupported { .. }));
}

#[test]
fn a_jpeg_comes_near_its_pixels() {
    let dir = folder(&["a", "b"]);
    let image = RgbImage::from_pixel(16, 16, Rgb([200, 100, 50]));
    image.save(dir.path().join("a/1.jpg")).unwrap();
    // What it is called does not matter, what it is does.
    image.save_with_format(dir.path().join("b/1.png"), ImageFormat::Jpeg).unwrap();
    let data = load(&source(&dir), None).unwrap();
    let near = |(at, value): (usize, &f32)| (value - [200.0, 100.0, 50.0][at / 256 % 3]).abs() <= 4.0;
    assert!(values(&data).iter().enumerate().all(near), "{:?}", values(&data));
}

#[test]
fn a_schema_makes_images_alike() {
    let dir = folder(&["a", "b"]);
    grey(&dir, "a/1.png", (4, 4), |_, _| 7);
    RgbImage::from_pixel(2, 6, Rgb([255, 0, 0])).save(dir.path().join("b/1.png")).unwrap();
    let error = refused(&dir, None, "b/1.png: it is [3, 6, 2], and");
    assert!(error.to_string().contains("a/1.png is [1, 4, 4]"), "{error}");
    let colour = load(&source(&dir), Some(&schema("[3, 3, 2]", 2))).unwrap();
    assert_eq!(colour.x.only().unwrap().shape, [2, 3, 3, 2]);
    assert_eq!(values(&colour), [vec![7.0; 18], vec![255.0; 6], vec![0.0; 12]].concat());
    // 0.2126 of 255.
    let grey_too = load(&source(&dir), Some(&schema("[1, 2, 2]", 2))).unwrap();
    assert_eq!(values(&grey_too), [[7.0; 4], [54.0; 4]].concat());

    let dir = folder(&["a", "b"]);
    grey(&dir, "a/1.png", (4, 1), |x, _| [0, 100, 200, 100][x as usize]);
    let halved = values(&load(&source(&dir), Some(&schema("[1, 1, 2]", 2))).unwrap());
    assert!(halved[0] > 30.0 && halved[0] < 80.0 && halved[1] > 120.0 && halved[1] < 170.0, "{halved:?}");
}

#[test]
fn what_a_schema_contradicts_is_refused() {
    let dir = folder(&["a", "b"]);
    grey(&dir, "a/1.png", (2, 2), |_, _| 7);
    refused(&dir, Some(&schema("[1, 2, 2]", 3)), "it has 2 folders of classes (a, b)");
    refused(&dir, Some(&schema("[4]", 2)), "[4]");
    refused(&dir, Some(&schema("[2, 2, 2]", 2)), "[2, 2, 2]");
    let narrow = Schema::from_toml("[input]\nshape = [1, 2, 2]\nrange = [0, 1]\n[targets]\nclasses = 2").unwrap();
    assert!(matches!(load(&source(&dir), Some(&narrow)), Err(DataError::Violation { .. })));
}

#[test]
fn a_damaged_image_is_named() {
    let dir = folder(&["a", "b"]);
    grey(&dir, "a/1.png", (20, 20), |x, y| (x * 11 + y * 7) as u8);
    let path = grey(&dir, "b/1.png", (20, 20), |x, y| (x * 7 + y * 11) as u8);
    let whole = fs::read(&path).unwrap();
    for end in [0, 1, 8, 20, 33, whole.len() / 2, whole.len() * 3 / 4] {
        fs::write(&path, &whole[..end]).unwrap();
        assert!(matches!(refused(&dir, None, "b/1.png is damaged"), DataError::Malformed { .. }), "{end}");
    }
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    fs::write(&path, &flipped).unwrap();
    assert!(matches!(refused(&dir, None, "b/1.png"), DataError::Malformed { .. }));
}

/// A PNG that announces a size and holds next to nothing.
fn announce(path: &Path, width: u32, height: u32) {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    for (kind, data) in [(b"IHDR", &header[..]), (b"IDAT", &[0x78, 0x9c, 0x63, 0, 0, 0, 1, 0, 1]), (b"IEND", &[])] {
        let chunk = [&kind[..], data].concat();
        let mut crc = flate2::Crc::new();
        crc.update(&chunk);
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend(chunk);
        bytes.extend(crc.sum().to_be_bytes());
    }
    fs::write(path, bytes).unwrap();
}

#[test]
fn an_image_that_would_unpack_beyond_the_limits_is_refused() {
    let dir = folder(&["a", "b"]);
    let path = dir.path().join("a/1.png");
    // 768 MiB of colours, and more pixels than a side may have.
    for (width, height) in [(16_384, 16_384), (1 << 20, 1), (1, 1 << 30)] {
        announce(&path, width, height);
        let error = refused(&dir, None, "a/1.png");
        assert!(matches!(error, DataError::TooLarge { .. } | DataError::Unsupported { .. }), "{error}");
    }
    grey(&dir, "a/1.png", (100, 100), |_, _| 0);
    let limited = |bytes| load_with(&source(&dir), None, &[], Limits { bytes });
    assert!(limited(40_000).is_ok());
    assert!(matches!(limited(39_999), Err(DataError::TooLarge { bytes: 40_000, .. })));
}

#[test]
fn classes_without_examples_count_and_a_lone_one_is_refused() {
    let dir = folder(&["only"]);
    grey(&dir, "only/1.png", (2, 2), |_, _| 7);
    refused(&dir, None, "one class, `only`");
    fs::create_dir(dir.path().join("first")).unwrap();
    assert_eq!(load(&source(&dir), None).unwrap().y, Targets::Classes(vec![1]));
    let none = folder(&["a", "b"]);
    assert!(matches!(load(&source(&none), None), Err(DataError::Fault { fault: DataFault::Empty, .. })));
    assert!(matches!(load(&source(&folder(&[])), None), Err(DataError::MissingArray { .. })));
}

#[test]
fn files_that_are_no_images_are_refused_by_name() {
    let dir = folder(&["a", "b"]);
    grey(&dir, "a/1.png", (2, 2), |_, _| 7);
    for stray in ["b/labels.txt", "b/2.gif", "readme.md"] {
        let path = dir.path().join(stray);
        fs::write(&path, "x").unwrap();
        assert!(matches!(refused(&dir, None, stray), DataError::Unsupported { .. }));
        fs::remove_file(path).unwrap();
    }
    fs::create_dir(dir.path().join("b/inner.png")).unwrap();
    refused(&dir, None, "b/inner.png");
}
