-- KEYS[7..] pictures. ARGV: worker, epoch, group, state, body, result ttl, tombstone ttl, then the pictures.
-- Returns 1, or -1 when the job is no longer this worker's. A repeated call changes nothing.
local worker, epoch, state = ARGV[1], ARGV[2], ARGV[4]
if field('state') == state and field('owner') == worker and field('epoch') == epoch then
  return 1
end
if not is_mine(worker, epoch) then
  return -1
end
local pictures = 0
for i = 7, #KEYS do
  redis.call('SET', KEYS[i], ARGV[i + 1], 'PX', ARGV[6])
  pictures = pictures + bytes_of(KEYS[i])
end
conclude(ARGV[3], state, ARGV[5], ARGV[6], ARGV[7], pictures)
return 1
