//! `rcon image tree`

use clap::Args;
use rcon_engine::{Error, ImageRecord};

use crate::app::Command;
use crate::context::Context;
use crate::failure::Outcome;
use crate::output::{self, human};
use crate::usage::arity;

/// The arguments of `image tree`.
#[derive(Args, Debug)]
pub struct ImageTree {
    args: Vec<String>,
}

impl Command for ImageTree {
    const ABOUT: &'static str = "Print the layers of an image, and which images end with them";
    const USAGE: &'static str = "IMAGE";
    const EXAMPLES: &'static [&'static str] = &["image tree alpine:latest"];

    fn run(self, context: &Context) -> Outcome {
        arity(&self.args, 1, 1)?;
        let engine = context.engine()?;
        let image = engine.find_image(&self.args[0])?;
        let all = engine.images()?;
        let mut text = format!(
            "Image ID: {}\nTags:     [{}]\nSize:     {}\n",
            human::short(&image.id),
            image.names.join(" "),
            human::size(image.size, "")
        );
        text += match image.layers.is_empty() {
            true => "No Image Layers\n",
            false => "Image Layers\n",
        };
        for (at, layer) in image.layers.iter().enumerate() {
            let meta = engine.store().layer_meta(layer).map_err(Error::from)?;
            let branch = match at + 1 == image.layers.len() {
                true => "└──",
                false => "├──",
            };
            let size = human::size(meta.map_or(0, |m| m.size), "");
            text += &format!("{branch} ID: {} Size: {size:>6}", human::short(layer.hex()));
            let names = ends_with(&all, &image, at + 1);
            if !names.is_empty() {
                text += &format!(" Top Layer of: [{}]", names.join(" "));
            }
            text.push('\n');
        }
        output::print(&text)?;
        Ok(0)
    }
}

/// The names of the images that are made of just the first `count` layers of this one.
fn ends_with<'a>(all: &'a [ImageRecord], image: &ImageRecord, count: usize) -> Vec<&'a str> {
    let same = |other: &&ImageRecord| other.layers == image.layers[..count];
    let names = all.iter().filter(same).flat_map(|i| &i.names);
    let mut names: Vec<&str> = names.map(String::as_str).collect();
    // The store has them in no order.
    names.sort_unstable();
    names
}
