//! Line charts as SVG.

use std::fmt::Write;

/// Of the picture, in its own units.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 280.0;
/// Room for the numbers at the axes.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 38.0;

/// A line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) style: Style,
    /// From left to right; x and y.
    pub(crate) points: Vec<(f64, f64)>,
}

/// Which of the page's colours and dashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style {
    pub(crate) color: usize,
    pub(crate) dashes: usize,
}

impl Style {
    fn classes(self) -> String {
        format!("c{} d{}", self.color, self.dashes)
    }

    /// A piece of such a line.
    pub(crate) fn sample(self) -> String {
        let classes = self.classes();
        format!("<svg class=\"sample\" viewBox=\"0 0 28 8\"><path class=\"{classes}\" d=\"M0 4H28\"/></svg>")
    }
}

/// A place on an axis, and what stands there.
#[derive(Debug, Clone, PartialEq)]
struct Tick {
    at: f64,
    label: String,
}

/// What an axis shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// From 0 on, evenly.
    Linear,
    /// Each power of ten as long.
    Logarithmic,
    /// Percentiles, of 100: 90, 99, 99.9 and so on with the same distance.
    Percentiles,
}

/// A chart, without its heading.
#[derive(Debug)]
pub(crate) struct Chart<'a> {
    pub(crate) x: Scale,
    pub(crate) x_name: &'a str,
    pub(crate) y: Scale,
    /// How a number of the y axis is written.
    pub(crate) y_label: fn(f64) -> String,
    pub(crate) series: Vec<Series>,
}

impl Chart<'_> {
    /// The picture, with the names of its lines where there are several, or a word where there is nothing to show.
    pub(crate) fn to_svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points).copied();
        let shown = |&(x, y): &(f64, f64)| self.x.place(x).is_finite() && self.y.place(y).is_finite();
        let (Some(x), Some(y)) = (
            Range::of(self.x, points().filter(shown).map(|(x, _)| x)),
            Range::of(self.y, points().filter(shown).map(|(_, y)| y)),
        ) else {
            return "<p class=\"none\">not measured</p>".to_owned();
        };
        let right = |value| LEFT + x.part(value) * (WIDTH - LEFT - RIGHT);
        let down = |value| HEIGHT - BOTTOM - y.part(value) * (HEIGHT - TOP - BOTTOM);

        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
        for Tick { at, label } in y.ticks(self.y_label) {
            let (at, end, before) = (down(at), WIDTH - RIGHT, LEFT - 6.0);
            let _ = write!(svg, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{end}\"/>");
            let _ = write!(svg, "<text x=\"{before}\" y=\"{at:.1}\" class=\"y\">{}</text>", escape(&label));
        }
        for Tick { at, label } in x.ticks(|number| format!("{number}")) {
            let (at, end, below) = (right(at), HEIGHT - BOTTOM, HEIGHT - BOTTOM + 15.0);
            let _ = write!(svg, "<path class=\"grid\" d=\"M{at:.1} {TOP}V{end}\"/>");
            let _ = write!(svg, "<text x=\"{at:.1}\" y=\"{below}\" class=\"x\">{}</text>", escape(&label));
        }
        let (middle, bottom) = ((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 5.0);
        let _ = write!(svg, "<text x=\"{middle}\" y=\"{bottom}\" class=\"x\">{}</text>", escape(self.x_name));
        for series in &self.series {
            let mut line = String::new();
            for (x, y) in series.points.iter().copied().filter(shown) {
                let _ = write!(line, "{:.1},{:.1} ", right(x), down(y));
            }
            let (classes, name, line) = (series.style.classes(), escape(&series.name), line.trim());
            let _ = write!(svg, "<polyline class=\"{classes}\" points=\"{line}\"><title>{name}</title></polyline>");
        }
        svg + "</svg>" + &self.legend()
    }

    /// The names of the lines that are there to be told apart.
    fn legend(&self) -> String {
        if self.series.len() < 2 {
            return String::new();
        }
        let mut legend = String::from("<ul class=\"legend\">");
        for series in self.series.iter().filter(|series| !series.points.is_empty()) {
            let _ = write!(legend, "<li>{}<span>{}</span></li>", series.style.sample(), escape(&series.name));
        }
        legend + "</ul>"
    }
}

impl Scale {
    /// Where a value is, in units of its own.
    fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Logarithmic => value.log10(),
            Self::Percentiles => -(1.0 - value / 100.0).log10(),
        }
    }
}

/// What part of an axis is shown.
#[derive(Debug, Clone, Copy)]
struct Range {
    scale: Scale,
    from: f64,
    until: f64,
}

impl Range {
    /// All of these; `None` for nothing.
    fn of(scale: Scale, values: impl Iterator<Item = f64>) -> Option<Self> {
        let (mut from, mut until) = (f64::INFINITY, f64::NEG_INFINITY);
        for place in values.map(|value| scale.place(value)) {
            (from, until) = (from.min(place), until.max(place));
        }
        if from > until {
            return None;
        }
        // Only powers of ten get a line: begin and end with one.
        match scale {
            Scale::Linear | Scale::Percentiles => from = 0.0,
            Scale::Logarithmic => (from, until) = (from.floor(), until.ceil()),
        }
        if until <= from {
            until = from + 1.0;
        }
        Some(Self { scale, from, until })
    }

    /// How far along the axis a value is, from 0 to 1.
    fn part(&self, value: f64) -> f64 {
        (self.scale.place(value) - self.from) / (self.until - self.from)
    }

    fn ticks(&self, label: impl Fn(f64) -> String) -> Vec<Tick> {
        let at = |at: f64| Tick { at, label: label(at) };
        match self.scale {
            Scale::Linear => {
                let step = step(self.until);
                let steps = rounded(self.until / step).floor();
                counted(0.0, steps).map(|number| at(rounded(number * step))).collect()
            }
            Scale::Logarithmic => counted(self.from, self.until).map(|power| at(10_f64.powf(power))).collect(),
            Scale::Percentiles => {
                // 0, 90, 99, 99.9 ...
                let percent = |nines: f64| rounded(100.0 - 10_f64.powf(2.0 - nines));
                counted(0.0, self.until.floor()).map(|nines| at(percent(nines))).collect()
            }
        }
    }
}

/// Whole numbers from one to another.
fn counted(from: f64, until: f64) -> impl Iterator<Item = f64> {
    /// More than fit between the ends of any axis.
    const TICKS_MAX: usize = 64;
    std::iter::successors(Some(from), |number| Some(number + 1.0))
        .take_while(move |number| *number <= until)
        .take(TICKS_MAX)
}

/// Without what binary fractions add: 0.30000000000000004.
fn rounded(number: f64) -> f64 {
    (number * 1e9).round() / 1e9
}

/// A round distance of lines, so that there are four to ten up to `until`.
fn step(until: f64) -> f64 {
    let power = 10_f64.powf((until / 5.0).log10().floor());
    let fits = |factor: &f64| until / (factor * power) < 6.5;
    power * [1.0, 2.0, 5.0].into_iter().find(fits).unwrap_or(10.0)
}

/// Text that may stand in HTML, also in a quoted attribute.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: Scale, values: &[f64]) -> Vec<String> {
        let range = Range::of(scale, values.iter().copied()).unwrap();
        range.ticks(|number| format!("{number}")).into_iter().map(|tick| tick.label).collect()
    }

    #[test]
    fn lines_stand_at_round_numbers() {
        assert_eq!(labels(Scale::Linear, &[3.0, 47.0]), ["0", "10", "20", "30", "40"]);
        assert_eq!(labels(Scale::Linear, &[0.3]), ["0", "0.05", "0.1", "0.15", "0.2", "0.25", "0.3"]);
        assert_eq!(labels(Scale::Linear, &[0.0]), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        assert_eq!(labels(Scale::Logarithmic, &[130.0, 9000.0]), ["100", "1000", "10000"]);
        assert_eq!(labels(Scale::Percentiles, &[0.0, 50.0, 99.95]), ["0", "90", "99", "99.9"]);
    }

    #[test]
    fn lines_go_from_corner_to_corner() {
        let series = vec![Series {
            name: "a & b".into(),
            style: Style { color: 3, dashes: 1 },
            points: vec![(0.0, 0.0), (10.0, 50.0)],
        }];
        let chart = Chart { x: Scale::Linear, x_name: "s", y: Scale::Linear, y_label: |y| format!("{y}"), series };
        let svg = chart.to_svg();
        assert!(svg.contains("points=\"64.0,242.0 628.0,10.0\""), "{svg}");
        assert!(svg.contains("class=\"c3 d1\"") && svg.contains("<title>a &amp; b</title>"), "{svg}");
    }

    #[test]
    fn what_cannot_be_shown_is_left_out() {
        let style = Style { color: 0, dashes: 0 };
        let series = |points: &[(f64, f64)]| vec![Series { name: String::new(), style, points: points.to_vec() }];
        let chart = |points: &[(f64, f64)]| Chart {
            x: Scale::Percentiles,
            x_name: "",
            y: Scale::Logarithmic,
            y_label: |y| format!("{y}"),
            series: series(points),
        };
        assert!(chart(&[]).to_svg().contains("not measured"));
        // The hundredth percentile is infinitely far away, and 0 has no logarithm.
        let svg = chart(&[(50.0, 0.0), (90.0, 10.0), (99.0, 100.0), (100.0, 1000.0)]).to_svg();
        assert!(svg.contains("points=\"346.0,242.0 628.0,10.0\""), "{svg}");
    }
}
