//! Curves and tables as SVG.

use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};
use sapwood_models::metrics::ConfusionMatrix;

use crate::output::Failure;

const FONT: &str = "sans-serif";
const SIZE: (u32, u32) = (720, 440);
/// Side of a confusion matrix, about.
const MATRIX: usize = 640;
/// With more classes than these, cells hold no numbers.
const READABLE: usize = 32;
/// Most points of a plot; more hide each other.
const POINTS: usize = 5000;

/// The loss of each epoch, on the training data and, where it was measured, on the validation data.
pub(super) fn losses(training: &[f64], validation: &[f64]) -> Result<String, Failure> {
    let mut svg = String::new();
    draw_losses(&mut svg, training, validation).map_err(Failure::internal)?;
    Ok(svg)
}

/// Rows are true classes, columns answers; a cell is the darker the larger its share of the row.
pub(super) fn confusion(matrix: &ConfusionMatrix, names: &[String]) -> Result<String, Failure> {
    let mut svg = String::new();
    draw_confusion(&mut svg, matrix, names).map_err(Failure::internal)?;
    Ok(svg)
}

/// Answer less truth over the truth.
pub(super) fn residuals(truth: &[f32], answers: &[f32]) -> Result<String, Failure> {
    let mut svg = String::new();
    draw_residuals(&mut svg, truth, answers).map_err(Failure::internal)?;
    Ok(svg)
}

type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

fn draw_losses<'a>(svg: &'a mut String, training: &[f64], validation: &[f64]) -> Drawn<'a> {
    let finite = |losses: &[f64]| -> Vec<(f64, f64)> {
        (1..).map(f64::from).zip(losses.iter().copied()).filter(|(_, loss)| loss.is_finite()).collect()
    };
    let (training, validation) = (finite(training), finite(validation));
    let all = || training.iter().chain(&validation);
    let last = all().map(|(epoch, _)| *epoch).fold(2.0, f64::max);
    let (low, high) = span(all().map(|(_, loss)| *loss).chain([0.0]));
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart =
        ChartBuilder::on(&root).margin(16).x_label_area_size(40).y_label_area_size(64).build_cartesian_2d(1.0..last, low..high)?;
    chart.configure_mesh().x_desc("epoch").y_desc("loss").x_label_formatter(&|epoch| format!("{epoch:.0}")).draw()?;
    for (name, points, colour) in [("training", training, BLUE), ("validation", validation, RED)] {
        if points.is_empty() {
            continue;
        }
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 2, colour.filled())))?;
        let line = chart.draw_series(LineSeries::new(points, colour))?.label(name);
        line.legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], colour));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).label_font((FONT, 14)).draw()?;
    root.present()
}

fn draw_residuals<'a>(svg: &'a mut String, truth: &[f32], answers: &[f32]) -> Drawn<'a> {
    let step = truth.len().div_ceil(POINTS).max(1);
    let points = truth.iter().zip(answers).step_by(step).map(|(t, a)| (f64::from(*t), f64::from(*a) - f64::from(*t)));
    let points: Vec<(f64, f64)> = points.filter(|(t, r)| t.is_finite() && r.is_finite()).collect();
    let (left, right) = span(points.iter().map(|(t, _)| *t));
    let (low, high) = span(points.iter().map(|(_, r)| *r).chain([0.0]));
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart =
        ChartBuilder::on(&root).margin(16).x_label_area_size(40).y_label_area_size(64).build_cartesian_2d(left..right, low..high)?;
    chart.configure_mesh().x_desc("truth").y_desc("answer less truth").draw()?;
    chart.draw_series(LineSeries::new([(left, 0.0), (right, 0.0)], BLACK))?;
    chart.draw_series(points.into_iter().map(|point| Circle::new(point, 2, BLUE.mix(0.5).filled())))?;
    root.present()
}

/// Least and greatest value with some room; never empty.
fn span(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
    if low > high {
        return (0.0, 1.0);
    }
    let room = if high > low { 0.05 * (high - low) } else { 0.5 };
    (if low == 0.0 { 0.0 } else { low - room }, high + room)
}

fn draw_confusion<'a>(svg: &'a mut String, matrix: &ConfusionMatrix, names: &[String]) -> Drawn<'a> {
    let classes = matrix.classes();
    let cell = (MATRIX / classes.max(1)).clamp(4, 48) as i32;
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).min(24) as i32;
    let (left, top) = (48 + 8 * longest, 56 + 8 * longest);
    let side = cell * classes as i32;
    let root = SVGBackend::with_string(svg, ((left + side + 24) as u32, (top + side + 24) as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    let text = |size: i32, anchor: Pos| TextStyle::from((FONT, size)).pos(anchor);
    let (middle, right, below) =
        (Pos::new(HPos::Center, VPos::Center), Pos::new(HPos::Right, VPos::Center), Pos::new(HPos::Left, VPos::Center));
    root.draw(&Text::new("rows: the truth, columns: answers", (8, 16), text(14, Pos::new(HPos::Left, VPos::Center))))?;
    let every = classes.div_ceil(READABLE * 2).max(1);
    for truth in 0..classes {
        let y = top + cell * truth as i32;
        let present: u64 = (0..classes).map(|answer| matrix.count(truth, answer)).sum();
        for answer in 0..classes {
            let (x, count) = (left + cell * answer as i32, matrix.count(truth, answer));
            let share = count as f64 / present.max(1) as f64;
            let fade = |full: u8| (255.0 - share * f64::from(255 - full)) as u8;
            let corners = [(x, y), (x + cell, y + cell)];
            root.draw(&Rectangle::new(corners, RGBColor(fade(8), fade(48), fade(107)).filled()))?;
            root.draw(&Rectangle::new(corners, RGBColor(222, 222, 222)))?;
            if count > 0 && classes <= READABLE {
                let colour = if share > 0.5 { WHITE } else { BLACK };
                let size = (cell / 3).clamp(6, 14);
                root.draw(&Text::new(count.to_string(), (x + cell / 2, y + cell / 2), text(size, middle).color(&colour)))?;
            }
        }
        if truth % every == 0 {
            let name = shown(names, truth);
            let size = cell.clamp(6, 13);
            root.draw(&Text::new(name.clone(), (left - 6, y + cell / 2), text(size, right)))?;
            let upright = TextStyle::from((FONT, size).into_font().transform(FontTransform::Rotate270)).pos(below);
            root.draw(&Text::new(name, (left + cell * truth as i32 + cell / 2, top - 6), upright))?;
        }
    }
    root.present()
}

/// A class's name, short, and of characters that XML can hold.
fn shown(names: &[String], class: usize) -> String {
    let name = names.get(class).cloned().unwrap_or_else(|| class.to_string());
    name.chars().take(24).map(|c| if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts of a file, which is well-formed.
    fn texts(svg: &str) -> Vec<String> {
        let parsed = roxmltree::Document::parse(svg).unwrap_or_else(|e| panic!("{e}\n{svg}"));
        assert_eq!(parsed.root_element().tag_name().name(), "svg");
        let texts = parsed.descendants().filter(|n| n.has_tag_name("text"));
        texts.filter_map(|n| n.text()).map(|text| text.trim().to_owned()).collect()
    }

    fn elements(svg: &str, name: &str) -> usize {
        roxmltree::Document::parse(svg).unwrap().descendants().filter(|n| n.has_tag_name(name)).count()
    }

    #[test]
    fn losses_are_two_lines_with_a_legend() {
        let both = losses(&[2.0, 1.0, 0.5], &[2.5, 1.5, 1.6]).unwrap();
        let said = texts(&both);
        assert!(["epoch", "loss", "training", "validation"].iter().all(|word| said.iter().any(|text| text == word)), "{said:?}");
        assert_eq!(elements(&both, "circle"), 6);
        let alone = losses(&[2.0, f64::NAN, 0.5], &[]).unwrap();
        assert!(!texts(&alone).iter().any(|text| text == "validation") && elements(&alone, "circle") == 2);
        for few in [&[][..], &[1.0], &[0.0, 0.0]] {
            texts(&losses(few, &[]).unwrap());
        }
    }

    #[test]
    fn a_confusion_matrix_has_its_counts_and_names() {
        let mut matrix = ConfusionMatrix::new(3);
        (0..7).for_each(|_| matrix.add(0, 0));
        matrix.add(1, 2);
        let names = ["<cats> & \"dogs\"", "a\u{1}b", "plain"].map(str::to_owned);
        let svg = confusion(&matrix, &names).unwrap();
        let said = texts(&svg);
        for word in ["7", "1", "<cats> & \"dogs\"", "a?b", "plain"] {
            assert!(said.iter().any(|text| text == word), "{word}: {said:?}");
        }
        assert!(!said.iter().any(|text| text == "0"), "empty cells are empty: {said:?}");
        // Many classes: no numbers, and still a picture.
        let many = confusion(&ConfusionMatrix::new(150), &[]).unwrap();
        assert!(elements(&many, "rect") >= 150 * 150);
        texts(&many);
    }

    #[test]
    fn residuals_are_points_around_nothing() {
        let svg = residuals(&[0.0, 1.0, 2.0], &[0.5, 1.0, f32::NAN]).unwrap();
        assert_eq!(elements(&svg, "circle"), 2);
        assert!(texts(&svg).iter().any(|text| text == "answer less truth"));
        let many = vec![1.0; 3 * POINTS];
        assert!(elements(&residuals(&many, &many).unwrap(), "circle") <= POINTS);
        texts(&residuals(&[], &[]).unwrap());
    }
}
