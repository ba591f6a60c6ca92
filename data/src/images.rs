//! Folders of images: one folder for each class, `photos/cat/7.png`.
//!
//! - Classes are numbered from 0 in the order of their folders' names; an empty folder keeps a class its number where no example is.
//! - Values are 0 to 255, as f32, in the shape `[channels, height, width]`. What is to happen to them is a preprocessing graph's work.
//! - With a schema, its `shape` decides: images of another size are resized with a triangle filter (bilinear; where it shrinks, over all
//!   pixels that fall into one), whatever that does to their proportions, and grey becomes colour or colour grey (by Rec. 709 luma).
//!   Without one, all images must agree; a BMP is always in colour.
//! - The turn that a camera noted (EXIF) is applied. Sixteen bits become eight. Transparency is refused, unless nothing is transparent.
//! - Hidden files are left alone; any other file that is no image is refused, so that nothing is left unlearned in silence.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read as _},
    path::{Path, PathBuf},
};

use image::{ColorType, DynamicImage, ImageDecoder as _, ImageReader, imageops::FilterType};
use sapwood_models::{Dataset, Targets, Tensor, TensorData};

use crate::{Columns, DataError, Limits, Schema, TargetKind};

/// Most pixels of a side.
const MAX_SIDE: u32 = 16_384;
/// Most bytes that one image may unpack to.
const MAX_DECODED: u64 = 1 << 28;
/// Most bytes of one file.
const MAX_FILE: u64 = 1 << 26;
const EXTENSIONS: [&str; 4] = ["png", "jpg", "jpeg", "bmp"];

/// The classes of a folder of images, in the order of their numbers; `None` if it is a folder of arrays.
///
/// # Errors
/// [`DataError::Io`]; [`DataError::Unsupported`] for a name that is no text.
pub(crate) fn classes(folder: &Path) -> Result<Option<Vec<String>>, DataError> {
    let mut names = Vec::new();
    for (name, path) in entries(folder)? {
        if Path::new(&name).extension().is_some_and(|e| e == "npy") {
            return Ok(None);
        }
        if path.is_dir() {
            names.push(name);
        }
    }
    Ok((!names.is_empty()).then_some(names))
}

/// Reads the images of `classes`, in the order of the files' names.
pub(crate) fn read(folder: &Path, classes: Vec<String>, schema: Option<&Schema>, limits: Limits) -> Result<(Dataset, Columns), DataError> {
    if let Some((_, stray)) = entries(folder)?.into_iter().find(|(_, path)| !path.is_dir()) {
        return Err(unsupported(&stray, "a folder of images has a folder for each class and nothing else"));
    }
    if classes.len() < 2 {
        return Err(unsupported(
            folder,
            &format!("it has one class, `{}`; an empty folder stands for a class without examples here", classes[0]),
        ));
    }
    if let Some(schema) = schema
        && schema.targets() != TargetKind::Classes(classes.len())
    {
        let reason =
            format!("it has {} folders of classes ({}), which are not the targets of the schema", classes.len(), classes.join(", "));
        return Err(unsupported(folder, &reason));
    }
    let wanted = schema.map(|schema| Shape::of(schema, folder)).transpose()?;
    let mut read = Images { folder, wanted, limits, common: None, values: Vec::new() };
    let (mut labels, mut names) = (Vec::new(), Vec::new());
    for (label, class) in (0..).zip(&classes) {
        for path in files(&folder.join(class))? {
            read.add(&path)?;
            labels.push(label);
            names.push(class.clone());
        }
    }
    let shape = read.wanted.or(read.common.map(|(shape, _)| shape)).unwrap_or(Shape { channels: 1, height: 1, width: 1 });
    let x = Tensor { shape: vec![labels.len(), shape.channels, shape.height, shape.width], data: TensorData::F32(read.values) };
    Ok((Dataset { x: x.into(), y: Targets::Classes(labels) }, Columns::new(BTreeMap::from([("class".to_owned(), names)]))))
}

/// What is not hidden, by name.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, DataError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(DataError::io("open", folder))? {
        let entry = entry.map_err(DataError::io("read", folder))?;
        match entry.file_name().into_string() {
            Ok(name) if name.starts_with('.') => {}
            Ok(name) => found.push((name, entry.path())),
            Err(_) => return Err(unsupported(&entry.path(), "its name is not UTF-8 text")),
        }
    }
    found.sort();
    Ok(found)
}

fn files(class: &Path) -> Result<Vec<PathBuf>, DataError> {
    let files: Vec<PathBuf> = entries(class)?.into_iter().map(|(_, path)| path).collect();
    let image = |path: &PathBuf| {
        let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
        path.is_file() && extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str()))
    };
    match files.iter().find(|path| !image(path)) {
        Some(other) => Err(unsupported(other, &format!("in the folder of a class are images only: {}", EXTENSIONS.join(", ")))),
        None => Ok(files),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Shape {
    channels: usize,
    height: usize,
    width: usize,
}

impl Shape {
    fn of(schema: &Schema, folder: &Path) -> Result<Self, DataError> {
        let [input] = schema.inputs() else {
            return Err(unsupported(folder, &format!("images are one input, the schema has {}", schema.inputs().len())));
        };
        match input.shape()[..] {
            [channels @ (1 | 3), height, width] if height.max(width) <= MAX_SIDE as usize => Ok(Self { channels, height, width }),
            ref other => {
                Err(unsupported(folder, &format!("images are [1, height, width] or [3, height, width], the schema's shape is {other:?}")))
            }
        }
    }

    fn len(self) -> usize {
        self.channels * self.height * self.width
    }
}

/// The images so far.
struct Images<'a> {
    folder: &'a Path,
    wanted: Option<Shape>,
    limits: Limits,
    /// What all images are like, and the first of them.
    common: Option<(Shape, PathBuf)>,
    values: Vec<f32>,
}

impl Images<'_> {
    fn add(&mut self, path: &Path) -> Result<(), DataError> {
        let image = decode(path)?;
        let channels = if image.color().has_color() { 3 } else { 1 };
        let found = Shape { channels, height: image.height() as usize, width: image.width() as usize };
        let shape = self.wanted.unwrap_or(found);
        if self.wanted.is_none() {
            let (first, at) = self.common.get_or_insert_with(|| (found, path.to_path_buf()));
            if *first != found {
                let told = |shape: Shape| format!("[{}, {}, {}]", shape.channels, shape.height, shape.width);
                let reason =
                    format!("it is {}, and {} is {}; a schema with their shape makes them alike", told(found), at.display(), told(*first));
                return Err(unsupported(path, &reason));
            }
        }
        let bytes = 4 * (self.values.len() + shape.len()) as u64;
        if bytes > self.limits.bytes {
            return Err(DataError::TooLarge { path: self.folder.to_path_buf(), bytes, limit: self.limits.bytes });
        }
        let image = if (found.height, found.width) == (shape.height, shape.width) {
            image
        } else {
            // Both are at most `MAX_SIDE`.
            image.resize_exact(shape.width as u32, shape.height as u32, FilterType::Triangle)
        };
        if shape.channels == 1 {
            self.values.extend(image.to_luma8().as_raw().iter().map(|v| f32::from(*v)));
        } else {
            let pixels = image.to_rgb8();
            for channel in 0..3 {
                self.values.extend(pixels.pixels().map(|pixel| f32::from(pixel.0[channel])));
            }
        }
        Ok(())
    }
}

/// Decodes one file, whose content decides what it is. What it announces is looked at before memory is taken.
fn decode(path: &Path) -> Result<DynamicImage, DataError> {
    let broken = |error: image::ImageError| match error {
        image::ImageError::Limits(_) => {
            unsupported(path, &format!("it has a side of more than {MAX_SIDE} pixels, or unpacks to more than {} MiB", MAX_DECODED >> 20))
        }
        error => DataError::Malformed { path: path.to_path_buf(), reason: error.to_string() },
    };
    let too_large = |bytes: u64, limit: u64| DataError::TooLarge { path: path.to_path_buf(), bytes, limit };
    let file = File::open(path).map_err(DataError::io("open", path))?;
    let mut bytes = Vec::new();
    BufReader::new(file).take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(DataError::io("read", path))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(too_large(bytes.len() as u64, MAX_FILE));
    }
    let mut reader = ImageReader::new(std::io::Cursor::new(bytes)).with_guessed_format().map_err(DataError::io("read", path))?;
    let mut limits = image::Limits::default();
    (limits.max_image_width, limits.max_image_height, limits.max_alloc) = (Some(MAX_SIDE), Some(MAX_SIDE), Some(MAX_DECODED));
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(broken)?;
    if decoder.total_bytes() > MAX_DECODED {
        return Err(too_large(decoder.total_bytes(), MAX_DECODED));
    }
    let orientation = decoder.orientation().map_err(broken)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(broken)?;
    image.apply_orientation(orientation);
    if image.color().has_alpha() && !is_opaque(&image) {
        return Err(unsupported(path, "parts of it are transparent; put it on a background first"));
    }
    Ok(image)
}

fn is_opaque(image: &DynamicImage) -> bool {
    match image.color() {
        ColorType::Rgba8 | ColorType::La8 | ColorType::Rgba16 | ColorType::La16 => {
            image.to_rgba16().pixels().all(|pixel| pixel.0[3] == u16::MAX)
        }
        _ => false,
    }
}

fn unsupported(path: &Path, reason: &str) -> DataError {
    DataError::Unsupported { path: path.to_path_buf(), reason: reason.to_owned() }
}
