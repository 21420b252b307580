//! A network over several places: consecutive layers on each of several backends, the residual stream handed from one
//! to the next through the host. For models that are larger than a device's memory, and for several devices.

use std::ops::Range;
use std::sync::Arc;

use super::*;

/// One place and its layers.
struct Section {
    backend: Arc<dyn Backend>,
    layers: Range<usize>,
}

/// Several backends as one. What they place is theirs; the verbs go to whoever has the layer.
pub struct SplitBackend {
    sections: Vec<Section>,
}

/// A page of each section.
struct SplitPage(Vec<Arc<KvPage>>);

/// A workspace of each section.
struct SplitWork {
    sections: Vec<Workspace>,
    /// The section that has the residual stream.
    current: usize,
    n_embd: usize,
    /// The residual stream on its way.
    stream: Vec<f32>,
}

impl SplitBackend {
    /// Backends in the order of their layers, each with the number that it has. The embedding goes to the first, the
    /// head to the last.
    pub fn new(sections: Vec<(Arc<dyn Backend>, usize)>) -> Result<SplitBackend> {
        let mut first = 0;
        let sections: Vec<Section> = sections
            .into_iter()
            .map(|(backend, layers)| {
                first += layers;
                Section { backend, layers: first - layers..first }
            })
            .collect();
        if sections.is_empty() {
            return Err(Error::Internal("a network in no place".into()));
        }
        Ok(SplitBackend { sections })
    }

    fn section_of(&self, part: Part) -> Result<(usize, &Section)> {
        let mut all = self.sections.iter().enumerate();
        let found = match part {
            Part::Embedding => all.next(),
            Part::Output => all.next_back(),
            Part::Layer(layer) => all.find(|(_, section)| section.layers.contains(&layer)),
        };
        found.ok_or_else(|| Error::Internal(format!("{part:?} has no place")))
    }

    /// Brings the residual stream to a section; its backend and workspace.
    fn go<'w>(&self, work: &'w mut Workspace, to: usize) -> Result<(&Section, &'w mut Workspace)> {
        let work = work_of(work)?;
        if work.current != to {
            let (section, from) = self.at(&mut work.sections, work.current)?;
            section.backend.residual(from, &mut work.stream)?;
            let (section, there) = self.at(&mut work.sections, to)?;
            section.backend.set_residual(there, &work.stream)?;
            work.current = to;
        }
        self.at(&mut work.sections, to)
    }

    /// The section that has the residual stream; its backend and workspace.
    fn here<'w>(&self, work: &'w mut Workspace) -> Result<(&Section, &'w mut Workspace)> {
        let work = work_of(work)?;
        self.at(&mut work.sections, work.current)
    }

    fn at<'w>(&self, sections: &'w mut [Workspace], i: usize) -> Result<(&Section, &'w mut Workspace)> {
        match (self.sections.get(i), sections.get_mut(i)) {
            (Some(section), Some(work)) => Ok((section, work)),
            _ => Err(foreign("workspace")),
        }
    }
}

fn work_of(work: &mut Workspace) -> Result<&mut SplitWork> {
    work.0.downcast_mut().ok_or_else(|| foreign("workspace"))
}

/// Takes a section's page out of a page, for writing if nobody else holds it. [`put_back`] returns it.
fn take(page: &mut Arc<KvPage>, section: usize) -> Result<Arc<KvPage>> {
    if let Some(owned) = Arc::get_mut(page) {
        let pages: &mut SplitPage = owned.0.downcast_mut().ok_or_else(|| foreign("page"))?;
        let place = pages.0.get_mut(section).ok_or_else(|| foreign("page"))?;
        return Ok(std::mem::replace(place, Arc::new(KvPage(Box::new(())))));
    }
    let pages: &SplitPage = page.0.downcast_ref().ok_or_else(|| foreign("page"))?;
    pages.0.get(section).cloned().ok_or_else(|| foreign("page"))
}

fn put_back(page: &mut Arc<KvPage>, section: usize, inner: Arc<KvPage>) {
    if let Some(pages) = Arc::get_mut(page).and_then(|page| page.0.downcast_mut::<SplitPage>())
        && let Some(place) = pages.0.get_mut(section)
    {
        *place = inner;
    }
}

/// The same rows at the same positions over other pages.
fn spans_with<'a>(spans: &[Span], pages: &'a mut [Vec<Arc<KvPage>>]) -> Vec<Span<'a>> {
    let pairs = spans.iter().zip(pages);
    pairs.map(|(span, pages)| Span { rows: span.rows.clone(), position: span.position, pages }).collect()
}

/// Runs `body` with the batch as `section` knows it: the same rows, its own pages, which it may write.
fn with_pages<T>(batch: &mut Batch, section: usize, body: impl FnOnce(&mut Batch) -> Result<T>) -> Result<T> {
    let mut inner: Vec<Vec<Arc<KvPage>>> = Vec::with_capacity(batch.spans.len());
    for span in &mut batch.spans {
        inner.push(span.pages.iter_mut().map(|page| take(page, section)).collect::<Result<_>>()?);
    }
    let spans = spans_with(&batch.spans, &mut inner);
    let result = body(&mut Batch { tokens: batch.tokens, spans });
    for (span, pages) in batch.spans.iter_mut().zip(inner) {
        span.pages.iter_mut().zip(pages).for_each(|(page, inner)| put_back(page, section, inner));
    }
    result
}

/// Runs `body` with the batch as `section` knows it, for reading.
fn with_shared_pages<T>(batch: &Batch, section: usize, body: impl FnOnce(&Batch) -> Result<T>) -> Result<T> {
    let shared = |page: &Arc<KvPage>| {
        let pages: &SplitPage = page.0.downcast_ref().ok_or_else(|| foreign("page"))?;
        pages.0.get(section).cloned().ok_or_else(|| foreign("page"))
    };
    let mut inner: Vec<Vec<Arc<KvPage>>> = Vec::with_capacity(batch.spans.len());
    for span in &batch.spans {
        inner.push(span.pages.iter().map(shared).collect::<Result<_>>()?);
    }
    let spans = spans_with(&batch.spans, &mut inner);
    body(&Batch { tokens: batch.tokens, spans })
}

impl Backend for SplitBackend {
    fn matrix(
        &self,
        part: Part,
        tensor_type: TensorType,
        rows: usize,
        columns: usize,
        data: TensorData,
    ) -> Result<Matrix> {
        self.section_of(part)?.1.backend.matrix(part, tensor_type, rows, columns, data)
    }

    fn vector(&self, part: Part, values: &[f32]) -> Result<Vector> {
        self.section_of(part)?.1.backend.vector(part, values)
    }

    fn separate_output(&self) -> bool {
        self.sections.len() > 1
    }

    fn best_batch(&self) -> usize {
        self.sections.iter().map(|section| section.backend.best_batch()).min().unwrap_or(1)
    }

    fn workspace(&self, shape: &WorkShape) -> Result<Workspace> {
        let sections = self.sections.iter().map(|s| s.backend.workspace(shape)).collect::<Result<Vec<_>>>()?;
        Ok(Workspace(Box::new(SplitWork { sections, current: 0, n_embd: shape.n_embd, stream: Vec::new() })))
    }

    fn kv_page(&self, shape: &KvShape) -> Result<KvPage> {
        let page = |section: &Section| {
            section.backend.kv_page(&KvShape { layers: section.layers.len(), ..*shape }).map(Arc::new)
        };
        Ok(KvPage(Box::new(SplitPage(self.sections.iter().map(page).collect::<Result<_>>()?))))
    }

    fn begin(&self, work: &mut Workspace, batch: &Batch, ropes: &[Rope]) -> Result<()> {
        let work = work_of(work)?;
        work.current = 0;
        work.stream.resize(batch.tokens.len() * work.n_embd, 0.0);
        for i in 0..self.sections.len() {
            let (section, inner) = self.at(&mut work.sections, i)?;
            with_shared_pages(batch, i, |batch| section.backend.begin(inner, batch, ropes))?;
        }
        Ok(())
    }

    fn embed(&self, work: &mut Workspace, batch: &Batch, table: &Matrix, scale: f32) -> Result<()> {
        let (section, inner) = self.here(work)?;
        with_shared_pages(batch, 0, |batch| section.backend.embed(inner, batch, table, scale))
    }

    fn qkv_rope_append(&self, work: &mut Workspace, batch: &mut Batch, args: &QkvRopeAppend) -> Result<()> {
        let (i, _) = self.section_of(Part::Layer(args.layer))?;
        let (section, inner) = self.go(work, i)?;
        let args = QkvRopeAppend { layer: args.layer - section.layers.start, ..*args };
        with_pages(batch, i, |batch| section.backend.qkv_rope_append(inner, batch, &args))
    }

    fn attend(&self, work: &mut Workspace, batch: &Batch, args: &Attend) -> Result<()> {
        let (i, _) = self.section_of(Part::Layer(args.layer))?;
        let (section, inner) = self.go(work, i)?;
        let args = Attend { layer: args.layer - section.layers.start, ..*args };
        with_shared_pages(batch, i, |batch| section.backend.attend(inner, batch, &args))
    }

    fn proj_add(&self, work: &mut Workspace, args: &LinearAdd) -> Result<()> {
        let (section, inner) = self.here(work)?;
        section.backend.proj_add(inner, args)
    }

    fn norm_gate_up_act(&self, work: &mut Workspace, args: &NormGateUpAct) -> Result<()> {
        let (section, inner) = self.here(work)?;
        section.backend.norm_gate_up_act(inner, args)
    }

    fn down_add(&self, work: &mut Workspace, args: &LinearAdd) -> Result<()> {
        let (section, inner) = self.here(work)?;
        section.backend.down_add(inner, args)
    }

    fn logits<'w>(&self, work: &'w mut Workspace, args: &Logits) -> Result<&'w [f32]> {
        let (section, inner) = self.go(work, self.sections.len() - 1)?;
        section.backend.logits(inner, args)
    }

    fn residual(&self, work: &mut Workspace, out: &mut [f32]) -> Result<()> {
        let (section, inner) = self.here(work)?;
        section.backend.residual(inner, out)
    }

    fn set_residual(&self, work: &mut Workspace, values: &[f32]) -> Result<()> {
        let (section, inner) = self.here(work)?;
        section.backend.set_residual(inner, values)
    }
}
