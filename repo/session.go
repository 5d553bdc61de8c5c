package repo

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"varve/index"
	"varve/repo/blocks"
	"varve/repo/pack"
)

// DefaultPackSize is how large a pack grows, in bytes, before the next one is begun.
const DefaultPackSize = 16 << 20

// publishers is how many packs may be verified and stored at once, while others are filled.
const publishers = 2

// SessionOptions says how a session stores.
type SessionOptions struct {
	Purpose     string      // for messages to others that find the repository in use
	Compression Compression // empty: CompressionDefault
	PackSize    int         // bytes; 0: DefaultPackSize
}

// Added counts what a session has put into the repository.
type Added struct {
	Chunks int64 // that were not there before
	Bytes  int64 // of them
	Stored int64 // bytes of the packs that hold them
	Packs  int64
}

// Session puts objects into the repository. It holds a shared lease from Begin to Close.
type Session struct {
	repo  *Repository
	lease *heldLease
	lent  bool     // the lease is that of a prune, which ends it
	maker [16]byte // begins the salts of the packs: see makerOf
	level Compression
	size  int
	index *index.Index

	pending pendingSet
	writers []*Writer

	mu      sync.Mutex
	open    map[pack.Kind]*pack.Builder
	made    []ID     // packs published by this session
	buffers [][]byte // of packs that are stored, to be used again
	err     error    // the first failure to publish: all later work fails with it
	slots   chan struct{}
	work    sync.WaitGroup

	chunks, bytes, stored, packs atomic.Int64
}

// Begin starts a session: *LockedError when somebody is alone with the repository.
func (r *Repository) Begin(ctx context.Context, o SessionOptions) (*Session, error) {
	lease, err := r.takeLease(ctx, Shared, o.Purpose)
	if err != nil {
		return nil, err
	}
	s, err := r.beginUnder(ctx, lease, o)
	if err != nil {
		lease.release()
		return nil, err
	}
	return s, nil
}

// beginUnder starts a session under a lease, which becomes the session's.
func (r *Repository) beginUnder(ctx context.Context, lease *heldLease, o SessionOptions) (*Session, error) {
	// The index is brought up to date after the lease is taken: what it finds now and is not condemned, no prune takes away.
	x, err := r.follow(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.condemnedKnown(); err != nil {
		return nil, err
	}
	return r.newSession(lease, o, x)
}

// newSession returns a session under a lease, which finds in x what is there already.
func (r *Repository) newSession(lease *heldLease, o SessionOptions, x *index.Index) (*Session, error) {
	if o.Compression == "" {
		o.Compression = CompressionDefault
	}
	if _, err := o.Compression.encoderOptions(); err != nil {
		return nil, err
	}
	if o.PackSize == 0 {
		o.PackSize = DefaultPackSize
	}
	return &Session{repo: r, lease: lease, maker: makerOf(lease.name), level: o.Compression, size: o.PackSize, index: x,
		open: map[pack.Kind]*pack.Builder{}, slots: make(chan struct{}, publishers)}, nil
}

// Added returns the counts so far. What is in unfinished frames is counted in Chunks and Bytes, not yet in Stored.
func (s *Session) Added() Added {
	return Added{Chunks: s.chunks.Load(), Bytes: s.bytes.Load(), Stored: s.stored.Load(), Packs: s.packs.Load()}
}

// Writer puts chunks, or tree nodes, into a session. It is for one goroutine at a time.
type Writer struct {
	session    *Session
	kind       pack.Kind
	hasher     *hasher
	compressor *compressor
	frame      []byte
	chunks     []pack.Chunk
	used       map[uint32]struct{} // packs that hold chunks which were found there
}

// DataWriter returns a new writer of chunks of disks.
func (s *Session) DataWriter() (*Writer, error) { return s.writer(pack.Data) }

// TreeWriter returns a new writer of tree nodes, which are kept in packs of their own.
func (s *Session) TreeWriter() (*Writer, error) { return s.writer(pack.Tree) }

func (s *Session) writer(kind pack.Kind) (*Writer, error) {
	c, err := newCompressor(s.level)
	if err != nil {
		return nil, err
	}
	w := &Writer{session: s, kind: kind, hasher: newHasher(s.repo.secrets.id), compressor: c, used: map[uint32]struct{}{}}
	s.mu.Lock()
	s.writers = append(s.writers, w)
	s.mu.Unlock()
	return w, nil
}

// ID returns the name of data.
func (w *Writer) ID(data []byte) ID { return w.hasher.id(data) }

// Has reports whether the repository has the chunk id, or will have it once this session is committed. What is only in
// packs that a prune has condemned does not count.
func (w *Writer) Has(id ID) bool {
	if w.session.pending.has(id) {
		return true
	}
	place, found := w.session.index.Lookup(id)
	if !found || place.Condemned {
		return false
	}
	w.used[place.Pack] = struct{}{}
	return true
}

// Save puts data, whose id it is given, into the repository unless it is there. data is not kept; it is 1 to
// pack.MaxFrame bytes long. The chunk is durable when Commit returns nil.
func (w *Writer) Save(ctx context.Context, id ID, data []byte) (added bool, err error) {
	if w.Has(id) || !w.session.pending.claim(id) {
		return false, nil
	}
	if err := w.put(ctx, id, data); err != nil {
		w.session.pending.drop(id) // or a second attempt would take it for saved
		return false, err
	}
	return true, nil
}

// put adds data to the current frame, whether or not the repository has it.
func (w *Writer) put(ctx context.Context, id ID, data []byte) error {
	if len(w.frame)+len(data) > pack.MaxFrame {
		if err := w.Flush(ctx); err != nil {
			return err
		}
	}
	if w.frame == nil {
		w.frame = make([]byte, 0, pack.MaxFrame)
	}
	w.frame = append(w.frame, data...)
	w.chunks = append(w.chunks, pack.Chunk{ID: id, Length: uint32(len(data))})
	w.session.chunks.Add(1)
	w.session.bytes.Add(int64(len(data)))
	return nil
}

// Flush compresses and seals the current frame into the session's current pack.
func (w *Writer) Flush(ctx context.Context) error {
	if len(w.frame) == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	codec, payload := w.compressor.encode(w.frame)
	err := w.session.appendFrame(w.kind, codec, payload, len(w.frame), w.chunks)
	w.frame, w.chunks = w.frame[:0], nil // the pack keeps the list
	return err
}

// appendFrame adds a frame to the open pack of its kind and begins to publish the pack when it is full.
func (s *Session) appendFrame(kind pack.Kind, codec pack.Codec, payload []byte, plain int, chunks []pack.Chunk) error {
	s.mu.Lock()
	if s.err != nil {
		defer s.mu.Unlock()
		return s.err
	}
	b := s.open[kind]
	if b == nil {
		b = pack.NewBuilder(s.repo.secrets.pack, kind, s.repo.own.Parity, s.maker, s.buffer(kind))
		s.open[kind] = b
	}
	b.Append(codec, payload, plain, chunks)
	full := b.Size() >= s.size
	if full {
		delete(s.open, kind)
	}
	s.mu.Unlock()
	if full {
		s.publish(b)
	}
	return nil
}

// buffer returns memory for a pack. Packs of tree nodes are mostly small, and grow from nothing. s.mu is held.
func (s *Session) buffer(kind pack.Kind) []byte {
	if kind == pack.Tree {
		return nil
	}
	if last := len(s.buffers) - 1; last >= 0 {
		b := s.buffers[last]
		s.buffers = s.buffers[:last]
		return b
	}
	return make([]byte, 0, s.size+2*pack.MaxFrame)
}

// publish stores a finished pack in the background. It waits while too many are on their way.
func (s *Session) publish(b *pack.Builder) {
	s.slots <- struct{}{}
	s.work.Add(1)
	go func() {
		defer func() { <-s.slots; s.work.Done() }()
		// Not the caller's context: a backup that is interrupted keeps what it has read.
		if err := s.publishNow(context.Background(), b); err != nil {
			s.mu.Lock()
			if s.err == nil {
				s.err = err
			}
			s.mu.Unlock()
		}
	}()
}

func (s *Session) publishNow(ctx context.Context, b *pack.Builder) error {
	data, id, dir := b.Finish()
	digests := s.repo.digestsOf(dir.Kind)
	if err := s.repo.verifyPack(data, dir, digests); err != nil {
		return fmt.Errorf("a pack is not readable as it would be stored; this points to faulty memory or hardware, nothing was stored: %w", err)
	}
	if err := s.repo.storage.Put(ctx, packName(id), data); err != nil {
		return fmt.Errorf("storing a pack: %w", err)
	}
	entries := indexEntries(dir)
	if err := s.index.Add(indexPack(id, int64(len(data)), dir), entries); err != nil {
		return fmt.Errorf("adding a pack to the index: %w", err)
	}
	if digests != nil && s.index.Healthy() == nil { // where the index is not written any more there is little room left
		s.repo.keepDigests(id, digests)
	}
	s.mu.Lock()
	s.made = append(s.made, id)
	if dir.Kind == pack.Data {
		s.buffers = append(s.buffers, data)
	}
	s.mu.Unlock()
	for _, e := range entries {
		s.pending.drop(e.ID)
	}
	s.stored.Add(int64(len(data)))
	s.packs.Add(1)
	return nil
}

// Sync makes everything that was saved so far durable. No writer may be in use.
func (s *Session) Sync(ctx context.Context) error {
	for _, w := range s.writers {
		if err := w.Flush(ctx); err != nil {
			return err
		}
	}
	s.mu.Lock()
	var rest []*pack.Builder
	for kind, b := range s.open {
		rest = append(rest, b)
		delete(s.open, kind)
	}
	s.mu.Unlock()
	for _, b := range rest {
		s.publish(b)
	}
	s.work.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Commit makes everything that was saved durable and then stores record, which may refer to it. Until Commit returns nil
// there is no record. No writer may be in use.
func (s *Session) Commit(ctx context.Context, record []byte) (ID, error) {
	if err := s.Sync(ctx); err != nil {
		return ID{}, err
	}
	if err := s.present(ctx); err != nil {
		return ID{}, err
	}
	if err := cmp.Or(s.lease.check(ctx), ctx.Err()); err != nil {
		return ID{}, err
	}
	id, err := s.repo.putRecord(ctx, record)
	if err != nil {
		return ID{}, err
	}
	// Once more: who was suspended while the record was on its way may have lost the lease, and a prune its packs. A prune
	// that takes the lease away later than this has seen the record.
	if err := s.lease.check(context.WithoutCancel(ctx)); err != nil {
		return ID{}, errors.Join(err, s.repo.DeleteRecord(context.WithoutCancel(ctx), id))
	}
	return id, nil
}

// present reports an error unless every pack in which this session found or put something is there.
func (s *Session) present(ctx context.Context) error {
	there := map[ID]struct{}{}
	if err := s.repo.listPacks(ctx, func(id ID, _ int64) { there[id] = struct{}{} }); err != nil {
		return err
	}
	var missing error
	need := func(id ID) {
		if _, found := there[id]; !found && missing == nil {
			missing = &DamagedError{Object: packName(id), Reason: "it vanished while this session relied on it; nothing was committed: run 'varve check', then this command again"}
		}
	}
	for _, id := range s.made {
		need(id)
	}
	for _, w := range s.writers {
		for ordinal := range w.used {
			if p, live := s.index.Pack(ordinal); live {
				need(p.ID)
			} else {
				return errors.New("a pack went away while this session relied on it; nothing was committed: run the command again")
			}
		}
	}
	return missing
}

// Close ends the session and its lease. What was saved but not committed is kept where that is possible, so that the
// next session finds it.
func (s *Session) Close() {
	if err := s.Sync(context.Background()); err != nil {
		s.repo.logf("keeping what was read so far: %v", err)
	}
	if !s.lent {
		s.lease.release()
		s.lent = true
	}
}

// verifyPack reads a pack back as a reader would: its directory, every frame, every chunk, which digests gets too when it is
// not nil. Its parity is computed again.
func (r *Repository) verifyPack(data []byte, want pack.Directory, digests *blocks.Builder) error {
	dir, err := pack.ReadDirectory(r.secrets.pack, bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return err
	}
	if dir.Parity > 0 {
		if err := pack.VerifyParity(data); err != nil {
			return err
		}
	}
	if len(dir.Frames) != len(want.Frames) {
		return fmt.Errorf("its directory has %d frames, not %d", len(dir.Frames), len(want.Frames))
	}
	o := dir.Opener(r.secrets.pack)
	scratch := r.takeScratch()
	defer r.scratches.Put(scratch)
	for _, f := range dir.Frames {
		if err := scratch.verify(o, f, data[f.Offset:f.Offset+f.Stored]); err != nil {
			return err
		}
		if digests == nil {
			continue
		}
		at := 0
		for _, c := range f.Chunks {
			digests.Add(c.ID, scratch.plain[at:at+int(c.Length)])
			at += int(c.Length)
		}
	}
	return nil
}
