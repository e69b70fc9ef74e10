//! What a config is read from.

/// Largest config file in bytes. The check runs before the TOML parser allocates.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// Name and text of a config file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigFile {
    /// The file's name as messages show it.
    pub name: String,
    /// The whole text of the file.
    pub text: String,
}

/// Everything that [`super::load`] reads: file, environment, flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// The config file. `None` if the caller names none.
    pub file: Option<ConfigFile>,
    /// The whole environment, including variables that are not ours.
    pub environment: Vec<(String, String)>,
    /// Settings given as flags: the key and the text of the value.
    pub flags: Vec<(&'static str, String)>,
    /// CPUs that the process may run on. Where `shards` is not set, this is the number of shards.
    pub cpus: u16,
    /// Whether the gateway will serve with this config. If so, a config without routes is an error
    /// instead of a warning.
    pub to_serve: bool,
}
