package flotilla

func (c *certs) stored(string) {}
func (c *certs) storedAny()    {}
