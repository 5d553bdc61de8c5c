package repo

import "context"

// Alone runs f while nobody else uses the repository: *LockedError, and f is not called, when somebody does.
func (r *Repository) Alone(ctx context.Context, purpose string, f func() error) error {
	return r.under(ctx, true, purpose, f)
}

// Beside runs f while nobody may remove anything from the repository: *LockedError, and f is not called, when somebody
// does that now. Others may read and add.
func (r *Repository) Beside(ctx context.Context, purpose string, f func() error) error {
	return r.under(ctx, false, purpose, f)
}

func (r *Repository) under(ctx context.Context, exclusive bool, purpose string, f func() error) error {
	lease, err := r.takeLease(ctx, exclusive, purpose)
	if err != nil {
		return err
	}
	defer lease.release()
	return f()
}

// Hasher returns a function that computes the ids of chunks. It is for one goroutine at a time.
func (r *Repository) Hasher() func(data []byte) ID { return newHasher(r.secrets.id).id }
