//! The weights of a loaded model, as sessions want them: standing in memory, in the file, or as ggml sees them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, MutexGuard, PoisonError};

use super::{Model, Output, SMALL_MATRIX};
use crate::Error;
use crate::ggml::{self, AlignedBuffer, Backend, Device, Tensors};
use crate::gguf::TensorInfo;
use crate::kernels::{Element, Kernels, Layout, Lookup, PackedMatrix, Source, Tables, Workers, place_bytes};
use crate::reserve::{Threads, watched};
use crate::session::Residency;
use crate::weights::Weights;

/// Under what a packed matrix is known.
fn key((name, layout): &(String, Layout)) -> (String, Element) {
    (name.clone(), layout.element)
}

/// What is looked up for each token: words, positions and token types.
const TABLES: [&str; 3] = ["token_embd.weight", "position_embd.weight", "token_types.weight"];

impl Model {
    pub(crate) fn weights(&self) -> &Arc<Weights> {
        &self.loaded.weights
    }

    /// How many tensors the file has.
    pub(crate) fn tensor_count(&self) -> usize {
        self.weights().infos().len()
    }

    /// The weights as ggml sees them, which are read into memory if they are not there.
    ///
    /// # Errors
    /// As [`Tensors::new`]; [`Error::OutOfMemory`], [`Error::Read`].
    pub(crate) fn tensors(&self) -> Result<&Tensors, Error> {
        if let Some(tensors) = self.loaded.tensors.get() {
            return Ok(tensors);
        }
        let _making = self.making();
        if self.loaded.tensors.get().is_none() {
            self.weights().storage().load()?;
            let tensors = watched(Threads::This, "the list of tensors", || Tensors::new(self.weights()))?;
            let _ = self.loaded.tensors.set(tensors);
        }
        Ok(self.loaded.tensors.get().expect("made right here, or by whoever was first"))
    }

    /// The weights on a device, if a session has them there.
    pub(crate) fn on_device(&self, device: Device) -> Option<Arc<Tensors>> {
        let known = self.loaded.on_devices.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().find(|(known, _)| *known == device).and_then(|(_, tensors)| tensors.upgrade())
    }

    /// The weights as they will be on a device: without what is looked up on the host.
    ///
    /// # Errors
    /// As [`Tensors::on_device`].
    pub(crate) fn described_on(&self, backend: &Backend) -> Result<Tensors, Error> {
        let multiplies_words = Output::PredictionLogits.exists_in(self.config());
        let is_wanted = |info: &TensorInfo| match TABLES.iter().position(|name| *name == info.name()) {
            None => true,
            Some(table) => table == 0 && multiplies_words,
        };
        let is_unpacked =
            |info: &TensorInfo| info.tensor_type().is_quantized() && info.elements() <= SMALL_MATRIX as u64;
        Tensors::on_device(self.weights(), backend, is_wanted, is_unpacked)
    }

    /// The weights on a device, which are copied there unless they are there already.
    ///
    /// # Errors
    /// As [`Tensors::upload`].
    pub(crate) fn upload(
        &self,
        backend: &Backend,
        mut tensors: Arc<Tensors>,
        ready: &dyn Fn(f32) -> bool,
    ) -> Result<Arc<Tensors>, Error> {
        let _making = self.making();
        if let Some(there) = self.on_device(backend.device()) {
            return Ok(there);
        }
        Arc::get_mut(&mut tensors).expect("what is not there yet is nobody else's").upload(backend, ready)?;
        let mut known = self.loaded.on_devices.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(_, tensors)| tensors.strong_count() > 0);
        known.push((backend.device(), Arc::downgrade(&tensors)));
        Ok(tensors)
    }

    /// Held by whoever makes what all sessions share, so that no two take memory for the same.
    fn making(&self) -> MutexGuard<'_, ()> {
        self.loaded.making.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn packed_matrices(&self) -> MutexGuard<'_, HashMap<(String, Element), PackedMatrix>> {
        self.loaded.packed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a packed matrix comes from.
    pub(crate) fn source(&self, name: &str, layout: Layout) -> Source {
        let stored = self.weights().stored(name);
        match self.packing().and_then(|packing| packing.layout(name)) {
            Some(packed) if packed == layout => Source::packed(layout, stored.start),
            _ => Source::rows(stored, layout.element),
        }
    }

    /// Whether a matrix is used where the file has it packed.
    fn is_used_in_file(&self, name: &str, layout: Layout, residency: Residency) -> bool {
        let packed = self.packing().and_then(|packing| packing.layout(name)) == Some(layout);
        let storage = self.weights().storage();
        // What is in memory already, and stays, needs no second place.
        packed && (storage.is_in_memory() || residency == Residency::Mapped && storage.is_mapped())
    }

    /// Bytes that these matrices take where the file is mapped, and in memory of their own.
    pub(crate) fn standing_bytes(&self, wanted: &[(String, Layout)], residency: Residency) -> [usize; 2] {
        let mut bytes = [0, 0];
        for (name, layout) in wanted {
            match self.is_used_in_file(name, *layout, residency) {
                true if self.weights().storage().is_mapped() => bytes[0] += layout.bytes(),
                true => {}
                false => bytes[1] += place_bytes(*layout),
            }
        }
        bytes
    }

    /// Those matrices, packed, in memory or where the file has them packed. What another session has had packed already is shared.
    ///
    /// # Errors
    /// As [`PackedMatrix::load`].
    pub(crate) fn standing(
        &self,
        wanted: &[(String, Layout)],
        residency: Residency,
        kernels: Kernels,
        workers: &mut Workers,
        ready: &(dyn Fn(f32) -> bool + Sync),
    ) -> Result<Vec<PackedMatrix>, Error> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let in_file = |(name, layout): &(String, Layout)| self.is_used_in_file(name, *layout, residency);
        let _making = self.making();
        // Not held while weights are read and others are told, who may ask what is packed.
        let packed = self.packed_matrices();
        let is_missing = |wanted: &&(String, Layout)| !in_file(wanted) && !packed.contains_key(&key(wanted));
        let missing: Vec<_> = wanted.iter().filter(is_missing).collect();
        drop(packed);
        let sources: Vec<Source> = missing.iter().map(|(name, layout)| self.source(name, *layout)).collect();
        let fresh = PackedMatrix::load(self.weights(), &sources, kernels, workers, ready)?;
        let mut packed = self.packed_matrices();
        packed.extend(missing.into_iter().map(key).zip(fresh));
        let matrix = |wanted: &(String, Layout)| match in_file(wanted) {
            true => PackedMatrix::in_file(self.weights(), wanted.1, self.weights().stored(&wanted.0).start),
            false => packed[&key(wanted)].clone(),
        };
        Ok(wanted.iter().map(matrix).collect())
    }

    /// Bytes that the model holds already for sessions that want other matrices than these.
    pub(crate) fn other_packed_bytes(&self, wanted: &[(String, Layout)]) -> usize {
        let wanted: HashSet<_> = wanted.iter().map(key).collect();
        let packed = self.packed_matrices();
        let others = packed.iter().filter(|(key, _)| !wanted.contains(*key));
        others.map(|(_, matrix)| matrix.own_bytes()).sum()
    }

    /// What is looked up for each token: in memory, or in the file if all weights are streamed from there.
    pub(crate) fn tables(&self, streamed: bool) -> Tables<'_> {
        let [words, positions, types] = [0, 1, 2].map(|table| {
            let stored = self.weights().stored(TABLES[table]);
            let own = self.loaded.tables.get().map(|tables| tables[table].as_slice());
            let bytes = match streamed {
                true => None,
                false => own.or_else(|| Some(&self.weights().storage().view()?[stored.range()])),
            };
            Lookup { stored, bytes }
        });
        Tables { words, positions, types }
    }

    /// Bytes of these tables in the file.
    pub(crate) fn table_bytes(&self) -> usize {
        TABLES.iter().map(|name| self.weights().stored(name).range().len()).sum()
    }

    /// Bytes of these tables in memory of their own.
    pub(crate) fn own_table_bytes(&self) -> usize {
        self.loaded.tables.get().map_or(0, |_| self.table_bytes())
    }

    /// Reads these tables into memory, if the file is neither there nor mapped.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Read`].
    pub(crate) fn load_tables(&self) -> Result<(), Error> {
        let storage = self.weights().storage();
        let _making = self.making();
        if storage.view().is_some() || self.loaded.tables.get().is_some() {
            return Ok(());
        }
        let load = |name: &str| {
            let range = self.weights().stored(name).range();
            let mut table = AlignedBuffer::pages(range.len(), "the embeddings")?;
            storage.read(range.start, table.as_mut_slice())?;
            Ok::<_, Error>(table)
        };
        let [words, positions, types] = TABLES.map(load);
        let _ = self.loaded.tables.set([words?, positions?, types?]);
        Ok(())
    }

    /// These tables, as far as they are in memory.
    fn tables_in_memory(&self, streamed: bool) -> impl Iterator<Item = &[u8]> {
        let Tables { words, positions, types } = self.tables(streamed);
        [words, positions, types].into_iter().filter_map(|table| table.bytes)
    }

    /// Touches every page of these tables that is in memory.
    pub(crate) fn touch_tables(&self, streamed: bool) {
        self.tables_in_memory(streamed).for_each(ggml::touch);
    }

    /// Keeps these tables from being swapped out or evicted.
    ///
    /// # Errors
    /// [`Error::Lock`].
    pub(crate) fn lock_tables(&self, streamed: bool) -> Result<(), Error> {
        self.tables_in_memory(streamed).try_for_each(ggml::lock)
    }

    /// Touches every page of the file, which is in memory or mapped.
    pub(crate) fn touch_file(&self) {
        self.weights().storage().view().into_iter().for_each(ggml::touch);
    }

    /// Keeps the file from being swapped out or evicted.
    ///
    /// # Errors
    /// [`Error::Lock`].
    pub(crate) fn lock_file(&self) -> Result<(), Error> {
        self.weights().storage().view().into_iter().try_for_each(ggml::lock)
    }
}
