-- ARGV: worker, epoch, group. Renews the lease without raising the delivery counter.
-- Returns 0 go on, 1 cancel, 2 the deadline has passed, -1 no longer this worker's.
if not is_mine(ARGV[1], ARGV[2]) then
  return -1
end
redis.call('XCLAIM', KEYS[3], ARGV[3], ARGV[1], 0, field('entry'), 'JUSTID')
return order()
