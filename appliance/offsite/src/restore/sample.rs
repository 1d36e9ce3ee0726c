//! A sample of a copy: some of its objects, chosen by chance, are received, decrypted and compared with the manifest, as in
//! a restore, and nothing is kept. Lighter than a restore: it asks an archive for these objects alone, and needs no room.

use futures_util::{StreamExt, TryStreamExt, stream};
use rand::seq::index;
use strongroom_borg::SegmentNumber;

use super::signed::Signed;
use super::thaw::Wanted;
use super::{DOWNLOADS_MAX, RestoreError, RestoreRequest, Run, receive};
use crate::manifest::FileEntry;
use crate::progress::{OnProgress, Phase, Progress, Told};
use crate::push::Tuning;

/// What was compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleReport {
    /// The state.
    pub transaction: SegmentNumber,
    /// Objects that were compared.
    pub objects: u64,
    /// Of so many.
    pub of: u64,
    /// The sizes of what was in them, together, in bytes.
    pub bytes: u64,
    /// Those whose content's SHA-256 the manifest does not know: their own sum and OpenPGP's integrity were checked.
    pub without_sum: u64,
    /// What is known of who made the copy.
    pub signed: Signed,
}

/// Compares `count` objects of a state, or all if there are fewer. The destination of the request is not used.
///
/// # Errors
/// [`RestoreError`].
pub async fn sample(
    request: &RestoreRequest,
    count: usize,
    tuning: &Tuning,
    on_progress: OnProgress<'_>,
) -> Result<SampleReport, RestoreError> {
    on_progress(Progress::new(Phase::Compare));
    let run = Run::new(request, tuning, false)?;
    let state = run.chosen().await?;
    let (manifest, signed) = run.manifest(&state.manifest, &mut || Ok(()), on_progress).await?;
    let of = manifest.files.len();
    let mut chosen = index::sample(&mut rand::thread_rng(), of, count.min(of)).into_vec();
    chosen.sort_unstable();
    let files: Vec<&FileEntry> = chosen.iter().filter_map(|at| manifest.files.get(*at)).collect();
    let progress = Progress {
        objects_total: files.len() as u64,
        bytes_total: files.iter().map(|file| file.size).sum(),
        ..Progress::new(Phase::Receive)
    };
    let wanted: Vec<Wanted<'_>> = files
        .iter()
        .map(|file| (file.object.as_str(), file.object_size))
        .collect();
    // What can be read is not asked for.
    run.thaw(&wanted, None, progress, &mut || Ok(()), &mut *on_progress)
        .await?;
    let told = Told::new(progress, &mut *on_progress);
    stream::iter(&files)
        .map(|file| compare(&run, file, &told))
        .buffer_unordered(usize::from(request.downloads.clamp(1, DOWNLOADS_MAX)))
        .try_collect::<()>()
        .await?;
    told.change(|progress| progress.phase = Phase::Done);
    Ok(SampleReport {
        transaction: manifest.transaction,
        objects: progress.objects_total,
        of: of as u64,
        bytes: progress.bytes_total,
        without_sum: files.iter().filter(|file| file.sha256.is_none()).count() as u64,
        signed,
    })
}

async fn compare(run: &Run<'_>, file: &FileEntry, told: &Told<'_>) -> Result<(), RestoreError> {
    let mut part = told.file(file.size);
    run.content(file, receive::Into::Nowhere, &mut |bytes| part.add(bytes))
        .await?;
    part.done();
    Ok(())
}
