//! Curves as SVG, embedded in the report's page.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

const SIZE: (u32, u32) = (920, 320);

/// One curve of a chart.
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// A chart's texts.
pub(crate) struct Axes<'a> {
    pub(crate) title: &'a str,
    pub(crate) x: &'a str,
    pub(crate) y: &'a str,
}

/// Percentiles (x: 1 / (1 − quantile), on a logarithmic axis) against delays in ms.
pub(crate) fn percentiles(curves: &[Curve]) -> Result<String> {
    let axes = Axes {
        title: "Delay by percentile",
        x: "percentile",
        y: "ms",
    };
    let end = largest(curves, |point| point.0).max(10.0);
    let top = largest(curves, |point| point.1).max(0.1) * 1.05;
    draw(curves, &axes, |root| {
        let mut chart = ChartBuilder::on(root);
        chart.caption(axes.title, ("sans-serif", 18)).margin(12);
        chart.x_label_area_size(36).y_label_area_size(64);
        let mut chart = chart
            .build_cartesian_2d((1.0..end).log_scale(), 0.0..top)
            .map_err(|error| anyhow!("{error}"))?;
        let percentile = |x: &f64| match 100.0 * (1.0 - 1.0 / x) {
            small if small < 99.0 => format!("{small:.0} %"),
            large => format!("{large:.3} %").replace("00 %", " %"),
        };
        let mut mesh = chart.configure_mesh();
        mesh.x_desc(axes.x)
            .y_desc(axes.y)
            .x_label_formatter(&percentile);
        mesh.draw().map_err(|error| anyhow!("{error}"))?;
        for (index, curve) in curves.iter().enumerate() {
            let colour = Palette99::pick(index).stroke_width(2);
            let line = LineSeries::new(curve.points.iter().copied(), colour);
            let drawn = chart
                .draw_series(line)
                .map_err(|error| anyhow!("{error}"))?;
            legend(drawn.label(&curve.name), index);
        }
        finish(&mut chart.configure_series_labels())
    })
}

/// A value per second.
pub(crate) fn series(curves: &[Curve], axes: &Axes<'_>) -> Result<String> {
    let end = largest(curves, |point| point.0).max(1.0);
    let top = largest(curves, |point| point.1).max(0.1) * 1.05;
    draw(curves, axes, |root| {
        let mut chart = ChartBuilder::on(root);
        chart.caption(axes.title, ("sans-serif", 18)).margin(12);
        chart.x_label_area_size(36).y_label_area_size(64);
        let mut chart = chart
            .build_cartesian_2d(0.0..end, 0.0..top)
            .map_err(|error| anyhow!("{error}"))?;
        let mut mesh = chart.configure_mesh();
        mesh.x_desc(axes.x).y_desc(axes.y).max_light_lines(0);
        mesh.draw().map_err(|error| anyhow!("{error}"))?;
        for (index, curve) in curves.iter().enumerate() {
            let colour = Palette99::pick(index).stroke_width(2);
            let line = LineSeries::new(curve.points.iter().copied(), colour);
            let drawn = chart
                .draw_series(line)
                .map_err(|error| anyhow!("{error}"))?;
            legend(drawn.label(&curve.name), index);
        }
        finish(&mut chart.configure_series_labels())
    })
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn draw(
    curves: &[Curve],
    axes: &Axes<'_>,
    plot: impl FnOnce(&Area<'_>) -> Result<()>,
) -> Result<String> {
    if curves.iter().all(|curve| curve.points.is_empty()) {
        return Ok(format!("<p>{}: nothing was measured.</p>", axes.title));
    }
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(|error| anyhow!("{error}"))?;
        plot(&root)?;
        root.present().map_err(|error| anyhow!("{error}"))?;
    }
    Ok(svg)
}

fn legend(series: &mut plotters::chart::SeriesAnno<'_, SVGBackend<'_>>, index: usize) {
    let colour = Palette99::pick(index).stroke_width(2);
    series.legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], colour));
}

fn finish<'a, CT: plotters::coord::CoordTranslate>(
    labels: &mut plotters::chart::SeriesLabelStyle<'a, '_, SVGBackend<'a>, CT>,
) -> Result<()> {
    labels
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3));
    labels.draw().map_err(|error| anyhow!("{error}"))
}

fn largest(curves: &[Curve], of: impl Fn(&(f64, f64)) -> f64) -> f64 {
    let points = curves.iter().flat_map(|curve| &curve.points);
    points.map(of).fold(0.0, f64::max)
}
