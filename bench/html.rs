//! The figures of one or several runs as a page: tables and plots, all in one file, without scripts, that needs no network.

pub(crate) mod chart;

use std::fmt::Write;
use std::io;
use std::path::Path;

use crate::latency::Latency;
use crate::limits::Limits;
use crate::meter::Sample;
use crate::report::Report;
use chart::{Chart, Scale, Series, Style, escape};

/// Told apart with every common kind of colour blindness, on light and on dark (Okabe and Ito, "Color Universal Design", 2008;
/// without yellow and black).
const COLORS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
/// Further runs have the same colours with gaps: 24 lines that differ. (Lengths of dashes and gaps.)
const DASHES: [&str; 4] = ["none", "7 3", "2 3", "9 3 2 3"];

/// Writes the page.
pub(crate) fn write(path: &Path, title: &str, reports: &[Report], limits: Option<&Limits>) -> io::Result<()> {
    let text = page(title, reports, limits);
    std::fs::write(path, text).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

fn page(title: &str, reports: &[Report], limits: Option<&Limits>) -> String {
    let mut page = String::from("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    let title = escape(title);
    let _ = write!(page, "<title>{title} · ringmq-bench</title>\n<style>\n{}", include_str!("html/style.css"));
    for (number, color) in COLORS.iter().enumerate() {
        let _ = writeln!(page, ".c{number} {{ stroke: {color}; }}");
    }
    for (number, dashes) in DASHES.iter().enumerate() {
        let _ = writeln!(page, ".d{number} {{ stroke-dasharray: {dashes}; }}");
    }
    let _ = write!(page, "</style>\n</head>\n<body>\n<h1>{title}</h1>\n{}", table(reports, limits));
    page += &limits.map(limits_table).unwrap_or_default();
    page += "<div class=\"charts\">\n";
    for (heading, chart) in charts(reports) {
        let _ = writeln!(page, "<section><h2>{heading}</h2>{}</section>", chart.to_svg());
    }
    page + "</div>\n" + &footer(reports) + "</body>\n</html>\n"
}

/// In a cell, where a run has no such figure.
const NONE: &str = "–";

/// One row for each run.
fn table(reports: &[Report], limits: Option<&Limits>) -> String {
    const HEADINGS: [&str; 15] = [
        "run",
        "records/s",
        "MB/s",
        "of the machine's limit",
        "asked for",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "p99.99",
        "max",
        "acknowledged, p99",
        "broker CPU s/GB",
        "broker memory",
        "errors",
    ];
    let rows: Vec<Vec<String>> = reports.iter().map(|report| cells(report, limits)).collect();
    // What no run has takes no place; the name stands before the cells, and the errors behind them.
    let is_shown = |column: usize| rows.iter().any(|cells| cells.get(column).is_none_or(|cell| cell != NONE));
    let mut table = String::from("<div class=\"scroll\"><table>\n<tr>");
    for (number, heading) in HEADINGS.iter().enumerate() {
        if number.checked_sub(1).is_none_or(is_shown) {
            let _ = write!(table, "<th>{heading}</th>");
        }
    }
    table += "</tr>\n";
    for (number, (report, cells)) in reports.iter().zip(&rows).enumerate() {
        let (sample, name) = (line_style(number).sample(), escape(&report.name));
        let _ = write!(table, "<tr><td>{sample}<span>{name}</span></td>");
        for (_, cell) in cells.iter().enumerate().filter(|(column, _)| is_shown(*column)) {
            let _ = write!(table, "<td>{}</td>", escape(cell));
        }
        let class = if report.errors > 0 { " class=\"bad\"" } else { "" };
        let _ = writeln!(table, "<td{class}>{}</td></tr>", report.errors);
    }
    table + "</table></div>\n"
}

/// What the machine could do without any broker: what the figures are to be held against.
fn limits_table(limits: &Limits) -> String {
    let rates = [
        ("disk, large direct writes", limits.disk_write_bytes_per_second),
        ("disk, large direct reads", limits.disk_read_bytes_per_second),
        ("loopback: bytes over TCP, without a disk", limits.loopback_bytes_per_second),
        ("pipe: receive, checksum, write, flush, reply", limits.pipe_bytes_per_second),
    ];
    let rates = rates.map(|(name, rate)| (name, format!("{}/s", size(rate))));
    let times = [
        ("a durable write of 4 KiB, p50", limits.dsync_4k_us_p50),
        ("a round trip over loopback, p50", limits.rtt_us_p50),
    ];
    let times = times.map(|(name, us)| (name, time(us)));
    let paced = [("50 MB/s in batches of 10 KB", limits.paced_10k_us), ("the same of 100 KB", limits.paced_100k_us)];
    let paced = paced.into_iter().filter_map(|(name, latency)| {
        let Latency { p50, p99, p999, .. } = latency?;
        Some((name, format!("p50 {}, p99 {}, p99.9 {}", time(p50), time(p99), time(p999))))
    });
    let mut table = String::from("<h2>What the machine could do</h2>\n<div class=\"scroll\"><table>\n");
    for (name, figure) in rates.into_iter().chain(times).chain(paced) {
        let _ = writeln!(table, "<tr><td>{name}</td><td>{figure}</td></tr>");
    }
    let _ = writeln!(table, "<tr><td>processors</td><td>{}</td></tr>", limits.cores);
    table + "</table></div>\n"
}

/// The throughput as a part of what the machine could do at most: of `loopback` where nothing is written, else of `pipe`.
/// Both count what goes through them; a run by a client has its values alone, so that its part is a little more than this.
pub(crate) fn of_limit(report: &Report, limits: &Limits) -> String {
    let limit = match report.verb.as_str() {
        "consume" => limits.loopback_bytes_per_second,
        _ => limits.pipe_bytes_per_second,
    };
    format!("{:.2}", report.bytes_per_second / limit)
}

/// Between the name and the errors.
fn cells(report: &Report, limits: Option<&Limits>) -> Vec<String> {
    let or_none = |number: Option<String>| number.unwrap_or_else(|| NONE.to_owned());
    let Latency { p50, p90, p99, p999, p9999, max } = report.latency_us;
    let mut cells = vec![
        format!("{:.0}", report.records_per_second),
        format!("{:.1}", report.bytes_per_second / 1e6),
        or_none(limits.map(|limits| of_limit(report, limits))),
        or_none(report.rate.clone()),
    ];
    cells.extend([p50, p90, p99, p999, p9999, max].map(time));
    cells.push(or_none(report.produce_latency_us.map(|latency| time(latency.p99))));
    cells.push(or_none(report.broker_cpu_seconds_per_gb.map(|seconds| format!("{seconds:.2}"))));
    let sampled = if report.broker_peak_memory_is_sampled { " (sampled)" } else { "" };
    cells.push(or_none(report.broker_peak_memory_bytes.map(|bytes| format!("{}{sampled}", size(bytes as f64)))));
    cells
}

fn charts(reports: &[Report]) -> Vec<(&'static str, Chart<'static>)> {
    let lines = |points: &dyn Fn(&Report) -> Vec<(f64, f64)>| -> Vec<Series> {
        let series = |(number, report): (usize, &Report)| Series {
            name: report.name.clone(),
            style: line_style(number),
            points: points(report),
        };
        reports.iter().enumerate().map(series).collect()
    };
    let over_time = |y_label, series| Chart { x: Scale::Linear, x_name: "seconds", y: Scale::Linear, y_label, series };
    let percentiles = lines(&|report| report.latency_curve.iter().map(|point| (point.percent, point.us)).collect());
    let throughput = lines(&|report| changes(&report.samples, |sample| Some(sample.bytes as f64)));
    let cpu = lines(&|report| changes(&report.samples, |sample| sample.broker_cpu_seconds));
    let memory = |sample: &Sample| Some((sample.seconds, sample.broker_memory_bytes? as f64));
    let memory = lines(&|report| report.samples.iter().filter_map(memory).collect());
    let written = |sample: &Sample| sample.broker_written_bytes.map(|bytes| bytes as f64);
    let written = lines(&|report| changes(&report.samples, written));
    let read = |sample: &Sample| sample.broker_read_bytes.map(|bytes| bytes as f64);
    let read = lines(&|report| changes(&report.samples, read));
    let latency = Chart {
        x: Scale::Percentiles,
        x_name: "percentile",
        y: Scale::Logarithmic,
        y_label: time,
        series: percentiles,
    };
    let longest =
        lines(&|report| report.samples.iter().map(|sample| (sample.seconds, sample.latency_max_us)).collect());
    let longest = Chart { y: Scale::Logarithmic, ..over_time(time, longest) };
    vec![
        ("Throughput, a second", over_time(size, throughput)),
        ("Latency", latency),
        ("Longest latency, of each fifth of a second", longest),
        ("Processors that the broker uses", over_time(|cores| format!("{cores}"), cpu)),
        ("Memory of the broker", over_time(size, memory)),
        ("Written to disk by the broker, a second", over_time(size, written)),
        ("Read from disk by the broker, a second", over_time(size, read)),
    ]
}

/// What tells the run with this number from the others.
fn line_style(number: usize) -> Style {
    Style { color: number % COLORS.len(), dashes: number / COLORS.len() % DASHES.len() }
}

/// By how much something that only grows grew in a second, from each sample to the next.
fn changes(samples: &[Sample], total: impl Fn(&Sample) -> Option<f64>) -> Vec<(f64, f64)> {
    let mut before = (0.0, Some(0.0));
    let mut changes = Vec::with_capacity(samples.len());
    for sample in samples {
        let now = (sample.seconds, total(sample));
        if let ((from, Some(old)), (until, Some(new))) = (before, now)
            && until > from
        {
            changes.push((until, ((new - old) / (until - from)).max(0.0)));
        }
        before = now;
    }
    changes
}

/// The command lines, and what was used.
fn footer(reports: &[Report]) -> String {
    let mut footer = String::from(
        "<footer><p>Latencies are merged from all workers. At a constant rate they count from when a batch was due. A \
         gigabyte is 10<sup>9</sup> bytes.</p>\n<dl>\n",
    );
    for report in reports {
        let (name, command, version) = (escape(&report.name), escape(&report.command), escape(&report.version));
        let (records, seconds, flush) = (report.records, report.seconds, escape(&report.flush));
        let _ = writeln!(
            footer,
            "<dt>{name}: {records} records in {seconds:.1} s, flush {flush}, version {version}</dt><dd><code>{command}</code></dd>"
        );
    }
    footer + "</dl></footer>\n"
}

/// Microseconds, as one reads them.
fn time(us: f64) -> String {
    match us {
        ..1e3 => format!("{us:.0} µs"),
        ..1e4 => format!("{} ms", trimmed(us / 1e3, 2)),
        ..1e6 => format!("{} ms", trimmed(us / 1e3, 1)),
        _ => format!("{} s", trimmed(us / 1e6, 2)),
    }
}

/// Bytes, as one reads them.
fn size(bytes: f64) -> String {
    match bytes {
        ..1e3 => format!("{bytes:.0} B"),
        ..1e6 => format!("{} kB", trimmed(bytes / 1e3, 1)),
        ..1e9 => format!("{} MB", trimmed(bytes / 1e6, 1)),
        _ => format!("{} GB", trimmed(bytes / 1e9, 2)),
    }
}

/// Without zeros behind the point.
fn trimmed(number: f64, digits: usize) -> String {
    let text = format!("{number:.digits$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::tests::limits;
    use crate::report::tests::report;

    #[test]
    fn a_page_has_a_row_and_lines_for_each_run_and_needs_nothing_else() {
        let mut second = report("<b>&");
        second.errors = 3;
        let page = page("A title", &[report("first"), second], Some(&limits()));
        // 4 MB/s of a pipe of 8 MB/s.
        assert!(page.contains("<td>0.50</td>") && page.contains("<td>8 MB/s</td>"), "{page}");
        assert!(page.contains("<h1>A title</h1>") && page.contains("first") && page.contains("&lt;b&gt;&amp;"));
        assert!(!page.contains("<b>&") && page.contains("<td class=\"bad\">3</td>"));
        // Two runs in each of six charts; nothing was read from disks.
        assert_eq!((page.matches("<polyline").count(), page.matches("not measured").count()), (12, 1));
        // Nobody asked for this figure, and others for that.
        assert!(!page.contains("acknowledged, p99") && page.contains("<th>asked for</th>"), "{page}");
        assert_eq!(page.matches("<th>").count(), page.split("</tr>").nth(1).unwrap().matches("</td>").count());
        // Beside each chart, and in the table.
        for name in ["<span>first</span>", "<span>&lt;b&gt;&amp;</span>"] {
            assert_eq!(page.matches(name).count(), 7, "{name}: {page}");
        }
        for outside in ["http:", "https:", "src=", "href=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
    }

    #[test]
    fn one_run_needs_no_legend_and_many_have_lines_of_their_own() {
        let reports: Vec<Report> =
            (0..COLORS.len() * DASHES.len()).map(|number| report(&format!("run {number}"))).collect();
        let one = page("One", &reports[..1], None);
        assert!(!one.contains("<ul"), "{one}");
        let many = page("Many", &reports, None);
        let lines = many.split("<polyline class=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
        let of_first_chart: std::collections::BTreeSet<&str> = lines.take(reports.len()).collect();
        assert_eq!(of_first_chart.len(), reports.len());
    }

    #[test]
    fn rates_are_differences_of_samples() {
        let found = changes(&report("x").samples, |sample| Some(sample.bytes as f64));
        assert_eq!(found.len(), 8);
        assert!(found.iter().all(|(_, rate)| (rate - 4_000_000.0).abs() < 1e-6), "{found:?}");
        assert_eq!(changes(&report("x").samples, |sample| sample.broker_read_bytes.map(|bytes| bytes as f64)), []);
    }

    #[test]
    fn numbers_are_written_as_one_reads_them() {
        let times = [(0.4, "0 µs"), (850.0, "850 µs"), (1250.0, "1.25 ms"), (20_000.0, "20 ms"), (1.5e6, "1.5 s")];
        times.iter().for_each(|(us, text)| assert_eq!(time(*us), *text));
        let sizes = [(0.0, "0 B"), (1500.0, "1.5 kB"), (5e7, "50 MB"), (2.25e9, "2.25 GB")];
        sizes.iter().for_each(|(bytes, text)| assert_eq!(size(*bytes), *text));
    }
}
