package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/crypto/bcrypt"
)

// Errors of this package.
var (
	// ErrDenied: the credentials are missing or wrong. 401.
	ErrDenied = errors.New("credentials are missing or wrong")
	// ErrBadOptions: a role, hash or name in Options can't be used.
	ErrBadOptions = errors.New("bad access settings")
)

// Role is what a caller may do. Admin includes the others.
type Role string

// The roles.
const (
	Read  Role = "read"
	Write Role = "write"
	Admin Role = "admin"
)

// Allows reports whether r covers need.
func (r Role) Allows(need Role) bool { return r == need || r == Admin }

// User is a name with the bcrypt hash of its password.
type User struct {
	Name, Hash string
	Role       Role
}

func (u *User) entry() entry { return entryOf("user", u.Name, u.Hash) }

// Token is a bearer token's SHA-256 in hex; Name is for the audit log.
type Token struct {
	Name, Hash string
	Role       Role
}

func (t *Token) entry() entry { return entryOf("token", "", strings.ToLower(t.Hash)) }

// Options lists who may call. With none, no request is let in.
type Options struct {
	Users  []User
	Tokens []Token
}

// Identity is a recognised caller. The zero value is nobody.
type Identity struct {
	Name  string
	Role  Role
	entry entry
}

// entry stands for a user or a token together with the hash of its secret.
type entry [sha256.Size]byte

func entryOf(kind, name, hash string) entry {
	return sha256.Sum256([]byte(kind + "\x00" + name + "\x00" + hash))
}

// maxCached bounds the successful checks that are remembered.
const maxCached = 1024

// Authenticator recognises callers by their Authorization header.
type Authenticator struct {
	users  map[string]User
	nobody User // whose hash stands in for that of an unknown user
	tokens map[[sha256.Size]byte]Token
	roles  map[entry]Role
	key    [32]byte // of the cache: random, so that its entries tell nothing
	mu     struct {
		sync.Mutex
		good map[[sha256.Size]byte]Identity
	}
}

// New builds an Authenticator. It reports every fault at once, each wrapping
// ErrBadOptions and naming the entry, never its hash.
func New(o *Options) (*Authenticator, error) {
	a := &Authenticator{users: map[string]User{}, tokens: map[[sha256.Size]byte]Token{}, roles: map[entry]Role{}}
	a.mu.good = map[[sha256.Size]byte]Identity{}
	if _, err := rand.Read(a.key[:]); err != nil {
		return nil, err
	}
	var errs []error
	for _, u := range o.Users {
		_, repeated := a.users[u.Name]
		_, err := bcrypt.Cost([]byte(u.Hash))
		if err != nil || repeated || !known(u.Role) || u.Name == "" || strings.Contains(u.Name, ":") {
			errs = append(errs, fmt.Errorf("%w: user %q", ErrBadOptions, u.Name))
			continue
		}
		a.users[u.Name], a.nobody = u, u
		a.roles[u.entry()] = u.Role
	}
	for _, t := range o.Tokens {
		sum, err := hex.DecodeString(t.Hash)
		if err != nil || len(sum) != sha256.Size || !known(t.Role) {
			errs = append(errs, fmt.Errorf("%w: token %q", ErrBadOptions, t.Name))
			continue
		}
		a.tokens[[sha256.Size]byte(sum)] = t
		a.roles[t.entry()] = t.Role
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return a, nil
}

// Holds reports whether who was recognised, perhaps by another Authenticator, still
// would be and may do need: the user or token is listed with the same secret.
func (a *Authenticator) Holds(id Identity, need Role) bool {
	r, ok := a.roles[id.entry]
	return ok && r.Allows(need)
}

func known(r Role) bool { return r == Read || r == Write || r == Admin }

// Identify recognises the caller by the value of an Authorization header, or
// fails with ErrDenied. The comparison of tokens is by hash, so that its time
// tells nothing of the token.
func (a *Authenticator) Identify(header string) (Identity, error) {
	scheme, cred, _ := strings.Cut(header, " ")
	switch {
	case strings.EqualFold(scheme, "Bearer"):
		if t, ok := a.tokens[sha256.Sum256([]byte(cred))]; ok {
			return Identity{t.Name, t.Role, t.entry()}, nil
		}
	case strings.EqualFold(scheme, "Basic"):
		return a.basic(cred)
	}
	return Identity{}, ErrDenied
}

// basic checks a password once by bcrypt and then by a keyed hash: bcrypt costs
// tens of milliseconds, which every write would pay.
func (a *Authenticator) basic(cred string) (Identity, error) {
	raw, err := base64.StdEncoding.DecodeString(cred)
	if err != nil {
		return Identity{}, ErrDenied
	}
	m := hmac.New(sha256.New, a.key[:])
	m.Write(raw)
	sum := [sha256.Size]byte(m.Sum(nil))
	a.mu.Lock()
	id, ok := a.mu.good[sum]
	a.mu.Unlock()
	if ok {
		return id, nil
	}
	name, pass, _ := strings.Cut(string(raw), ":")
	u, ok := a.users[name]
	if !ok {
		u = a.nobody // about as slow as a wrong password, so that time does not tell who exists
	}
	if bcrypt.CompareHashAndPassword([]byte(u.Hash), []byte(pass)) != nil || !ok {
		return Identity{}, ErrDenied
	}
	id = Identity{u.Name, u.Role, u.entry()}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.mu.good) >= maxCached {
		clear(a.mu.good)
	}
	a.mu.good[sum] = id
	return id, nil
}
