//! The key-value cache on the CPU: pages, and views of them for writing rows and for attention.

use std::sync::Arc;

use half::f16;

use super::attention::HeadPage;
use super::features::Isa;
use super::memory::AlignedBuf;
use super::vector;
use crate::backend::{KvPage, KvShape, KvType, PAGE_TOKENS, foreign};
use crate::error::{Error, Result};

/// A page on the CPU: for each layer `[k | v][n_head_kv][PAGE_TOKENS][head_dim]`.
pub(super) struct CpuPage {
    pub shape: KvShape,
    pub bytes: AlignedBuf,
}

/// Keys are the first half of a layer's part of a page.
pub(super) const KEYS: usize = 0;
/// Values are the second.
pub(super) const VALUES: usize = 1;

impl CpuPage {
    pub fn new(shape: &KvShape) -> Result<CpuPage> {
        let bytes = shape
            .page_bytes()
            .ok_or_else(|| Error::OutOfMemory { bytes: u64::MAX, what: "a page of the cache".into() })?;
        let mut bytes = AlignedBuf::zeroed(bytes)?;
        bytes.populate();
        Ok(CpuPage { shape: *shape, bytes })
    }

    pub fn of(page: &KvPage) -> Result<&CpuPage> {
        page.0.downcast_ref().ok_or_else(|| foreign("page"))
    }
}

/// Byte offset in a page of the keys or values of a head.
fn offset(s: &KvShape, layer: usize, part: usize, head: usize) -> usize {
    ((layer * 2 + part) * s.n_head_kv + head) * PAGE_TOKENS * s.head_dim * s.kv_type.bytes()
}

/// The pages of one sequence, open for writing some consecutive tokens, each by one thread.
pub(super) struct CacheRows {
    shape: KvShape,
    first_page: usize,
    pages: Vec<*mut u8>,
}

// SAFETY: the pages are borrowed mutably for as long as this lives, and `store` demands disjoint tokens.
unsafe impl Send for CacheRows {}
// SAFETY: as above.
unsafe impl Sync for CacheRows {}

impl CacheRows {
    /// Opens the pages of tokens `position..position + n`; an error if one of them is shared.
    pub fn new(pages: &mut [Arc<KvPage>], position: usize, n: usize) -> Result<CacheRows> {
        let first_page = position / PAGE_TOKENS;
        let last = (position + n).div_ceil(PAGE_TOKENS);
        let mut shape = None;
        let mut open = Vec::with_capacity(last - first_page);
        let range =
            pages.get_mut(first_page..last).ok_or_else(|| Error::Internal("too few pages for a step".into()))?;
        for page in range {
            let page = Arc::get_mut(page).ok_or_else(|| Error::Internal("a shared page would be written".into()))?;
            let page: &mut CpuPage = page.0.downcast_mut().ok_or_else(|| foreign("page"))?;
            shape = Some(page.shape);
            open.push(page.bytes.as_mut_slice().as_mut_ptr());
        }
        let shape = shape.ok_or_else(|| Error::Internal("a step without pages".into()))?;
        Ok(CacheRows { shape, first_page, pages: open })
    }

    /// Stores the keys or values of a head of one token.
    ///
    /// # Safety
    /// No other thread stores the same token, layer, part and head.
    pub unsafe fn store(&self, isa: Isa, token: usize, layer: usize, part: usize, head: usize, values: &[f32]) {
        let s = &self.shape;
        assert!(layer < s.layers && head < s.n_head_kv && values.len() == s.head_dim);
        let page = self.pages[token / PAGE_TOKENS - self.first_page];
        let at = offset(s, layer, part, head) + token % PAGE_TOKENS * s.head_dim * s.kv_type.bytes();
        // SAFETY: the page has the shape's bytes, `at` is a token's place in it, aligned to the elements since pages are.
        unsafe {
            match s.kv_type {
                KvType::F16 => {
                    vector::f32_to_f16(
                        isa,
                        values,
                        std::slice::from_raw_parts_mut(page.add(at).cast::<f16>(), s.head_dim),
                    );
                }
                KvType::F32 => {
                    std::slice::from_raw_parts_mut(page.add(at).cast::<f32>(), s.head_dim).copy_from_slice(values);
                }
            }
        }
    }
}

/// Keys and values of one head of one layer, page by page.
pub(super) struct PageHeads<'a> {
    pub pages: &'a [&'a CpuPage],
    pub layer: usize,
    pub head: usize,
}

impl<'a> PageHeads<'a> {
    /// Keys and values of page `p`.
    pub fn page(&self, p: usize) -> HeadPage<'a> {
        let page = self.pages[p];
        match page.shape.kv_type {
            KvType::F16 => HeadPage::F16 { k: self.part(page, KEYS), v: self.part(page, VALUES) },
            KvType::F32 => HeadPage::F32 { k: self.part(page, KEYS), v: self.part(page, VALUES) },
        }
    }

    fn part<T: bytemuck::AnyBitPattern>(&self, page: &'a CpuPage, part: usize) -> &'a [T] {
        let at = offset(&page.shape, self.layer, part, self.head);
        let len = PAGE_TOKENS * page.shape.head_dim * page.shape.kv_type.bytes();
        bytemuck::cast_slice(&page.bytes.as_slice()[at..at + len])
    }
}
